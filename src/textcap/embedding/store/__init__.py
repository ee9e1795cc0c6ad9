"""On-disk caches of embeddings: `text` for lists of captions, `audio` for sound files."""
