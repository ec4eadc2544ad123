"""Prompts are the only data: where they come from, in which order they are used, and their embeddings on disk."""
