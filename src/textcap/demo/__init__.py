"""The synthetic sound world: synthesisers, scenes, the grammar of their captions, and the models trained on it."""
