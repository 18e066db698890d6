"""Texts go to the model in batches, and each only once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from shared.embeddings.embedder import BATCH, BATCH_CHARS, Embedder, Vector
from shared.errors import InputError, TransientError
from tests.support.fakes.embeddings import REFUSED, Words


async def test_each_text_gets_its_own_vector_in_order() -> None:
    one, other, again = await Embedder(Words()).embed(["a b", "c", "a b"])
    assert one == again != other


async def test_whoever_comes_while_the_model_works_shares_a_batch() -> None:
    model = Words()
    embedder = Embedder(model)
    await asyncio.gather(*(embedder.embed([f"answer {number}", "the reference"]) for number in range(10)))
    first, rest = model.batches
    assert first == ["answer 0", "the reference"] and rest == [f"answer {number}" for number in range(1, 10)]


async def test_a_batch_has_a_limit_of_texts_and_of_characters() -> None:
    model = Words()
    embedder = Embedder(model)
    await asyncio.gather(*(embedder.embed([str(number)]) for number in range(3 * BATCH)))
    assert max(map(len, model.batches)) == BATCH

    long = ["x" * (BATCH_CHARS // 2) + str(number) for number in range(4)]
    model.batches.clear()
    await asyncio.gather(*(embedder.embed([text]) for text in long))
    assert len(model.batches) > 1


async def test_what_was_asked_for_before_is_known() -> None:
    model = Words()
    embedder = Embedder(model)
    first = await embedder.embed(["a", "b"])
    assert await embedder.embed(["b", "a"]) == first[::-1]
    assert len(model.batches) == 1


async def test_a_text_that_is_refused_fails_nobody_else() -> None:
    embedder = Embedder(Words())
    outcomes = await asyncio.gather(
        *(embedder.embed([text]) for text in ("good", REFUSED, "good, too")), return_exceptions=True
    )
    assert [isinstance(outcome, InputError) for outcome in outcomes] == [False, True, False]


class Silent(Words):
    """Does not answer the first time."""

    async def vectors(self, texts: Sequence[str]) -> list[Vector]:
        if not self.batches:
            self.batches.append(list(texts))
            raise TransientError("away")
        return await super().vectors(texts)


async def test_after_an_outage_the_model_is_asked_again() -> None:
    embedder = Embedder(Silent())
    with pytest.raises(TransientError):
        await embedder.embed(["a"])
    assert len(await embedder.embed(["a"])) == 1
