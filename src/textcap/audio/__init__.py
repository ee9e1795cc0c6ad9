"""Sound files to windows at the model's rate."""
