"""The synthetic sound world: synthesisers, scenes, the grammar that words them, and models trained on it."""
