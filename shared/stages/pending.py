"""The index of open work: `pending/{stage}/{time}-{job}`. One listing finds what a stage has to do, in the order in
which it was asked, however many jobs there ever were. See docs/architecture.md, "The stage protocol".

An entry only says where to look; what the ledger holds of the job decides. There may be several entries of one job, and
an entry whose stage is decided does no harm. At every moment an open job has an entry of its next stage, or of the one
before: a stage deletes its entries when its event is published, and the next stage is entered before that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shared import ids
from shared.errors import AlreadyExists
from shared.events import NEXT_STAGE, StageName, StageResult
from shared.stages.ledger import Ledger, pending_entry, pending_key, pending_prefix, result_key
from shared.stages.stage import Stage


@dataclass(frozen=True)
class Open:
    """The entries of one job. `asked_at`: when the stage was asked for, in seconds since the epoch by the ledger's
    clock."""

    asked_at: float
    keys: frozenset[str]


async def add(ledger: Ledger, stage: StageName, job_id: str, asked_at: float) -> None:
    """Enter a job. Raises like the ledger."""
    with contextlib.suppress(AlreadyExists):
        await ledger.create(pending_key(stage, asked_at, job_id), b"{}")


async def add_next(ledger: Ledger, result: StageResult) -> None:
    """Enter a job at the stage after the one that `result` decides, if it goes on. Raises like the ledger."""
    stage = NEXT_STAGE.get(result.stage)
    if stage is not None and result.outcome == "completed":
        await add(ledger, stage, result.job_id, result.finished_at)


async def read(ledger: Ledger, stage: StageName) -> dict[str, Open]:
    """The open jobs of a stage by id; first those that were asked for first. Raises like the ledger."""
    found: dict[str, Open] = {}
    for entry in await ledger.list(pending_prefix(stage)):
        parsed = pending_entry(entry.key)
        if parsed is None or not ids.is_job_id(parsed[2]):
            continue  # no entry of ours
        _, asked_at, job_id = parsed
        known = found.get(job_id, Open(asked_at, frozenset()))
        found[job_id] = Open(known.asked_at, known.keys | {entry.key})
    return found


async def remove(ledger: Ledger, keys: Iterable[str]) -> None:
    """Delete entries. Raises like the ledger."""
    for key in keys:
        await ledger.delete(key)


class Index:
    """The entries of one stage, as one runner last saw them. Methods raise like the ledger."""

    def __init__(self, ledger: Ledger, stage: Stage) -> None:
        self._ledger = ledger
        self._stage = stage
        self._open: dict[str, Open] = {}

    def __len__(self) -> int:
        """The number of open jobs."""
        return len(self._open)

    def __iter__(self) -> Iterator[str]:
        return iter(self._open)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._open

    def asked_at(self, job_id: str) -> float | None:
        """When the stage was asked for a job, by the ledger's clock; None if it has no entry."""
        entries = self._open.get(job_id)
        return entries.asked_at if entries else None

    async def refresh(self) -> tuple[list[str], set[str]]:
        """List the index. Returns the jobs that have new entries, in order, and those that have none any more."""
        before, self._open = self._open, await read(self._ledger, self._stage.name)
        new = [
            job_id
            for job_id, entries in self._open.items()
            if job_id not in before or not entries.keys <= before[job_id].keys
        ]
        return new, before.keys() - self._open.keys()

    async def enter(self, job_id: str) -> None:
        """Enter a job that an event asks for, unless one of us has: whoever commits a result enters the job first. The
        event may come from another system."""
        if job_id not in self._open and not await self._ledger.get(result_key(job_id, self._stage.upstream)):
            await add(self._ledger, self._stage.name, job_id, self._ledger.now())

    async def close(self, job_id: str) -> None:
        """Delete a job's entries, as far as they are known."""
        # forgotten first: what cannot be deleted now is new in the next listing, and is looked at again
        if (entries := self._open.pop(job_id, None)) is not None:
            await remove(self._ledger, entries.keys)
