"""Embeddings without torch: a text's vector counts its words."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from zlib import crc32

import pytest

from shared.embeddings import local
from shared.embeddings.embedder import Embedder, Vector
from shared.embeddings.server import make_app
from shared.errors import InputError
from tests.support.fakes.servers import Server

DIMENSIONS = 2048
REFUSED = "unreadable"
"""A text with this word is refused."""


class Words:
    """A model for embeddings. Texts with the same words are alike; `batches` are those that it was asked for."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    async def vectors(self, texts: Sequence[str]) -> list[Vector]:
        self.batches.append(list(texts))
        await asyncio.sleep(0)  # others may ask meanwhile
        if any(REFUSED in text for text in texts):
            raise InputError("text_too_long", "the model does not read this")
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> Vector:
        counts = [0.0] * DIMENSIONS
        for word in text.lower().split():
            counts[crc32(word.encode()) % DIMENSIONS] += 1
        length = math.hypot(*counts) or 1.0
        return array("f", [count / length for count in counts])


def without_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the extra `embeddings` is installed."""
    monkeypatch.setattr(local, "find_spec", lambda name: None)


@asynccontextmanager
async def serving_embeddings(model: Words) -> AsyncIterator[str]:
    """The program that serves a model, with this one. Yields its URL, with `/v1`."""
    async with Server(make_app(Embedder(model))).running() as server:
        yield f"{server.url}/v1"
