"""Sounds and captions to embeddings, and the caches that keep them."""
