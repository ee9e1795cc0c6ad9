"""Embed sounds and captions with CLAP, and cache the embeddings on disk."""
