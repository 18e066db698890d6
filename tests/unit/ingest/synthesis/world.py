"""A strong model that writes, answers and judges by rule, and a synthesis that asks it."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from typing import Any

from services.ingest.domain.synthesis.history import ENTRY, Entry, History
from services.ingest.domain.synthesis.plan import Seed
from services.ingest.domain.synthesis.spec import SynthesisSpec
from services.ingest.synthesis.journal import Journal, read
from services.ingest.synthesis.run import Outcome, Synthesis
from tests.support.fakes.language_model import FakeModel, serve

JUDGED = '{"score": 5, "reason": "good"}'


def words(text: str, count: int = 12) -> str:
    """Words that follow from a text, and that no other text gives."""
    return " ".join(hashlib.sha256(f"{text} {number}".encode()).hexdigest()[:7] for number in range(count))


def writer(said: str) -> str:
    """A query of its own for each request, an answer to it, and a good score for both."""
    if "<message>" in said:
        return JUDGED
    if number := re.search(r"Write message number (.*)\.$", said):
        return f"Case {number[1]}: {words(number[1])}"
    return f"answer to {said}"


def spec(url: str = "http://127.0.0.1:1", **changes: Any) -> SynthesisSpec:
    """A small synthesis on the endpoint `url`."""
    values: dict[str, Any] = {
        "task": "answers customers of a shop",
        "system": "You are kind.",
        "scenarios": ["late parcel", {"name": "refund", "facts": "Refunds take 5 days."}],
        "count": 10,
        "model": "strong",
        "endpoint": {"base_url": f"{url}/v1"},
        "concurrency": 4,
        "prices": {"input": 1.0, "output": 2.0},
        "budget": {"money": 100.0},
    }
    return SynthesisSpec.model_validate(values | changes)


class MemoryJournal(Journal):
    """A journal whose lines are kept in a list."""

    def __init__(self, lines: list[bytes] | None = None) -> None:
        self.lines = lines if lines is not None else []
        super().__init__(read(self.lines, "journal"))

    async def _keep(self, lines: bytes) -> None:
        await asyncio.sleep(0)
        self.lines.extend(lines.splitlines())

    @property
    def entries(self) -> list[Entry]:
        return [ENTRY.validate_json(line) for line in self.lines]


async def run(
    model: FakeModel,
    journal: MemoryJournal | None = None,
    *,
    seeds: tuple[Seed, ...] = (),
    started: Callable[[Synthesis], None] = lambda synthesis: None,
    progress: Callable[[History], None] = lambda history: None,
    **changes: Any,
) -> tuple[Outcome, MemoryJournal]:
    """Run a synthesis to its end on `model`."""
    journal = journal or MemoryJournal()
    async with serve(model) as url:
        synthesis = Synthesis(spec(url, **changes), seeds, journal, key_of=lambda endpoint: None, progress=progress)
        started(synthesis)
        return await synthesis.run(), journal
