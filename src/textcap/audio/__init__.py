"""Decode sound files and cut them into windows at the model's sample rate."""
