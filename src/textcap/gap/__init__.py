"""Measure the modality gap between audio and text embeddings, and bridge it."""
