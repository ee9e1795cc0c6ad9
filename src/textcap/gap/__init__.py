"""The modality gap between audio and text embeddings: measure it, and bridge it."""
