"""Embeddings: texts as vectors, by a model in this process or behind an OpenAI-compatible endpoint. `source.py` says
which, `embedder.py` asks it for many texts at a time."""
