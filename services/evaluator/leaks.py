"""Looks in the train split for what should not be in an answer. Only what stands in answers is looked for, so a split
is read once, row by row, and not at all where the answers hold nothing of that form."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from services.evaluator.domain.gate.checks import Leak
from services.evaluator.domain.gate.secrets import ALWAYS, few, secrets_in, strings_in
from shared.events import Split
from shared.store.objects import ObjectStore

SHOWN_LINES = 3


class Told(NamedTuple):
    """An answer of the tuned model, and what may be in it."""

    where: str
    """Which prompt it answers, for the report."""
    answer: str
    known: str
    """The prompt, and what else may be in the answer: the reference, and the answer of the base."""


async def leaks_in(objects: ObjectStore, train: Split | None, told: Iterable[Told]) -> tuple[Leak, ...] | None:
    """What the answers hold of the train split that their prompts lack; None without a train split.

    Raises:
        CorruptObject: the split is not what its reference promises.
    """
    if train is None:
        return None
    suspects = [
        (datum, kind, one.where)
        for one in told
        for datum, kind in secrets_in(one.answer).items()
        if datum not in one.known
    ]
    if not suspects:
        return ()
    with tempfile.TemporaryDirectory(prefix="tunestream-evaluator-") as folder:
        path = Path(folder) / "train.jsonl"
        await objects.download(train.reference, path)
        lines, rows = await asyncio.to_thread(_lines_with, path, {datum for datum, _, _ in suspects})
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for datum, kind, where in suspects:
        there = lines.get(datum, [])
        seen[datum, where] += 1
        if there and seen[datum, where] == 1 and (kind in ALWAYS or len(there) <= few(rows)):
            found.append(Leak(kind=kind, where=where, train_lines=tuple(there[:SHOWN_LINES])))
    return tuple(found)


def _lines_with(path: Path, data: set[str]) -> tuple[dict[str, list[int]], int]:
    """For each datum the lines that hold it, counted from 1, and the number of all lines."""
    wanted = re.compile("|".join(re.escape(datum) for datum in sorted(data, key=lambda datum: -len(datum))))
    lines: dict[str, list[int]] = defaultdict(list)
    count = 0
    with path.open("rb") as file:
        for count, raw in enumerate(file, 1):
            text = _text(raw)
            for datum in set(wanted.findall(text)):
                lines[datum].append(count)
    return lines, count


def _text(raw: bytes) -> str:
    try:
        return "\n".join(strings_in(json.loads(raw)))
    except (ValueError, RecursionError):  # the validator has refused such rows
        return raw.decode("utf-8", "replace")
