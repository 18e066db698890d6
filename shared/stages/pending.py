"""The index of open work: `pending/{stage}/{time}-{job}`. One listing finds what a stage has to do, in the order in
which it was asked, however many jobs there ever were. See docs/architecture.md, "The stage protocol".

An entry only says where to look; what the ledger holds of the job decides. There may be several entries of one job, and
an entry whose stage is decided does no harm. At every moment an open job has an entry of its next stage, or of the one
before: a stage deletes its entries when its event is published, and the next stage is entered before that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from shared import ids
from shared.errors import AlreadyExists
from shared.events import StageName, StageResult
from shared.stages.ledger import Ledger, pending_key, pending_prefix
from shared.stages.stage import NEXT


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
    stage = NEXT.get(result.stage)
    if stage is not None and result.outcome == "completed":
        await add(ledger, stage, result.job_id, result.finished_at)


async def read(ledger: Ledger, stage: StageName) -> dict[str, Open]:
    """The open jobs of a stage by id; first those that were asked for first. Raises like the ledger."""
    prefix = pending_prefix(stage)
    found: dict[str, Open] = {}
    for entry in await ledger.list(prefix):
        time, _, job_id = entry.key.removeprefix(prefix).partition("-")
        asked_at = _seconds(time)
        if asked_at is None or not ids.is_job_id(job_id):
            continue  # no entry of ours
        known = found.get(job_id, Open(asked_at, frozenset()))
        found[job_id] = Open(known.asked_at, known.keys | {entry.key})
    return found


async def remove(ledger: Ledger, keys: Iterable[str]) -> None:
    """Delete entries. Raises like the ledger."""
    for key in keys:
        await ledger.delete(key)


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
