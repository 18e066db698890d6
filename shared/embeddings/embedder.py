"""Asks a model for the vectors of texts: in batches, and once for each text."""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias

from shared.errors import InputError

Vector: TypeAlias = "array[float]"
"""Of length 1; as many numbers as the model has dimensions."""

BATCH = 32
BATCH_CHARS = 2**17
"""What is asked for at a time beside the texts of one caller."""
MOST_KNOWN = 2048
"""Vectors that are kept: a reference is compared with the answer of every variant. They take 3 MB at 384 dimensions."""


class Model(Protocol):
    """Whatever has vectors for texts."""

    async def vectors(self, texts: Sequence[str]) -> list[Vector]:
        """One vector for each text.

        Raises:
            InputError: it never takes one of these texts.
            TransientError: it does not answer now.
            ConfigError: a setting leads to no model.
        """
        ...


class Embedder:
    """The vectors of texts. Whoever comes while the model works waits, and goes to it together with all others."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock = asyncio.Lock()
        self._known = OrderedDict[str, Vector]()
        self._wanted = dict[str, int]()
        """Texts that callers wait for, with how many do."""

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector for each text, none of which may be empty.

        Raises:
            InputError, TransientError, ConfigError: as `Model.vectors`.
        """
        for text in texts:
            self._wanted[text] = self._wanted.get(text, 0) + 1
        try:
            async with self._lock:
                found = await self._found(texts)
        finally:
            for text in texts:
                self._wanted[text] -= 1
                if not self._wanted[text]:
                    del self._wanted[text]
        return [found[text] for text in texts]

    async def _found(self, texts: Sequence[str]) -> dict[str, Vector]:
        found = {text: self._known[text] for text in texts if text in self._known}
        if own := [text for text in dict.fromkeys(texts) if text not in found]:
            batch = [*own, *self._of_others({*own}, BATCH - len(own))]
            try:
                vectors = await self._model.vectors(batch)
            except InputError:
                if len(batch) == len(own):
                    raise
                batch, vectors = own, await self._model.vectors(own)  # it may be the text of another that is refused
            found |= zip(batch, vectors, strict=True)
        for text, vector in found.items():
            self._known[text] = vector
            self._known.move_to_end(text)
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return found

    def _of_others(self, own: set[str], most: int) -> Iterator[str]:
        """Texts that others wait for, and that are not known yet."""
        room = BATCH_CHARS
        for text in self._wanted:
            if text in own or text in self._known:
                continue
            most, room = most - 1, room - len(text)
            if most < 0 or room < 0:
                return
            yield text
