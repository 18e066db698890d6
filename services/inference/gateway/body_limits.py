"""Limits the body of a request by its path."""

from __future__ import annotations

from services.inference.gateway.control_plane import PREFIXES
from services.inference.gateway.exchange import GENERATION
from shared.http.body_limit import DEFAULT_LIMIT

GENERATION_LIMIT = 32 * 2**20
"""In bytes. A prompt of a million tokens needs about a tenth of it."""


def body_limit(path: str) -> int | None:
    """The limit in bytes. None for requests that go to the api service, which has limits of its own."""
    if path in GENERATION:
        return GENERATION_LIMIT
    if any(path == prefix or path.startswith(prefix + "/") for prefix in PREFIXES):
        return None
    return DEFAULT_LIMIT
