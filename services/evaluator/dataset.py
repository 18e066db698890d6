"""Reads the splits: which examples are asked, which are shown solved in few-shot prompts, and whether the answers are
labels."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from services.evaluator.domain.answer_length import Lengths, lengths_of
from services.evaluator.domain.examples import Example, parse_row
from services.evaluator.domain.kinds.labels import find_labels
from shared.events import Evaluation, Split
from shared.store.objects import ObjectStore


@dataclass(frozen=True)
class Dataset:
    """The rows of the splits that an evaluation uses."""

    examples: tuple[Example, ...]
    """The rows of the test split that are asked."""
    solved: tuple[Example, ...]
    """The rows of the train split that the few-shot prompt shows with their answers."""
    labels: tuple[str, ...] | None
    """All labels, sorted; None: the answers are free text or tool calls."""
    lengths: Lengths
    """Those of the test split."""

    @property
    def completion(self) -> bool:
        """Whether the rows are in the completion format: texts to be continued, not chats."""
        return any(example.prompt is not None for example in self.examples)


async def load(
    objects: ObjectStore,
    test: Split | None,
    train: Split | None,
    evaluation: Evaluation,
    seed: int,
    *,
    between: str = "\n",
) -> Dataset:
    """Download, verify and read the splits. Without a test split there is nothing to ask, and `examples` is empty.

    `seed` decides which rows are chosen when there are more than `evaluation` wants. `between`: what the base's chat
    template has between the text parts of an answer.

    Raises:
        InputError: a row is in none of the three formats; the message names its line.
        CorruptObject: a split is not what its reference promises.
    """
    with tempfile.TemporaryDirectory(prefix="tunestream-evaluator-") as folder:
        paths: list[Path | None] = []
        for name, split in (("test", test), ("train", train)):
            path = Path(folder) / f"{name}.jsonl" if split else None
            if split and path:
                await objects.download(split.reference, path)
            paths.append(path)
        tokens = test.tokens if test else 0
        return await asyncio.to_thread(
            _read, _Rows(paths[0], between), _Rows(paths[1], between), evaluation, seed, tokens
        )


@dataclass(frozen=True)
class _Rows:
    """The rows of a split, parsed anew each time that they are read; without a file there are none."""

    path: Path | None
    between: str

    def __iter__(self) -> Iterator[Example]:
        return self.only(None)

    def only(self, wanted: frozenset[int] | None) -> Iterator[Example]:
        """Those with these indexes; None: all."""
        numbered: Iterable[tuple[int, bytes]] = enumerate(_lines(self.path))
        for index, raw in numbered:
            if wanted is None or index in wanted:
                yield parse_row(raw, index + 1, self.between)


def _read(test: _Rows, train: _Rows, evaluation: Evaluation, seed: int, tokens: int) -> Dataset:
    return Dataset(
        examples=_chosen(test, evaluation.max_examples, seed),
        solved=_chosen(train, evaluation.few_shot, seed),
        lengths=lengths_of(test, tokens),
        labels=find_labels(example.reply() for example in chain(test, train)),
    )


def choose(count: int, wanted: int, seed: int) -> list[int]:
    """Which of `count` rows are used: at most `wanted` indices in ascending order, the same for the same seed."""
    if count <= wanted:
        return list(range(count))
    return sorted(np.random.default_rng(seed).choice(count, size=wanted, replace=False).tolist())


def _chosen(rows: _Rows, wanted: int, seed: int) -> tuple[Example, ...]:
    count = sum(1 for _ in _lines(rows.path))
    return tuple(rows.only(frozenset(choose(count, wanted, seed))))


def _lines(path: Path | None) -> Iterator[bytes]:
    if path is None:
        return
    with path.open("rb") as file:
        yield from file
