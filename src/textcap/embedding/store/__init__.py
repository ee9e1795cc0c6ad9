"""The caches of embeddings on disk: one for caption files, one for sounds."""
