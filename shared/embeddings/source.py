"""Where embeddings come from in this deployment, and whether there are any."""

from __future__ import annotations

from pathlib import Path

from shared.embeddings.embedder import Embedder
from shared.embeddings.endpoint import EndpointModel
from shared.embeddings.local import LocalModel, lacking
from shared.settings.embeddings import EmbeddingsSettings


def make_embedder(settings: EmbeddingsSettings) -> Embedder:
    """Nothing is loaded, and nobody asked, before the first text."""
    return Embedder(EndpointModel(settings.url, settings) if settings.url else LocalModel(settings.model))


def trouble(settings: EmbeddingsSettings) -> str:
    """Why this process has no embeddings, and what to do; empty: it has them. Nothing is imported for it."""
    if settings.url:
        return ""
    if missing := lacking(settings.model):
        return (
            f"this service lacks {missing}: install it (pip install 'tunestream[embeddings]'), or let "
            "TUNESTREAM_EMBEDDINGS__URL name an endpoint for embeddings"
        )
    folder = settings.model or ""
    if folder.startswith(("/", "./", "../", "~")) and not Path(folder).is_dir():
        return f"there is no folder {folder}: correct TUNESTREAM_EMBEDDINGS__MODEL"
    return ""
