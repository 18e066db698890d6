"""The retention policy: what of a job nobody needs any more. It decides and deletes nothing.

Only what attempts have written is ever chosen, and none of it that a result refers to: neither a result of the job, nor
one of a retry of it, whose results refer to the folders of the parent. So what is deployed, under an alias or listed as
a checkpoint stays, because the result that made it so refers to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from services.api.domain.walk import JobListing, Written
from shared.events import STAGE_NAMES, StageName, StageResult
from shared.stages.ledger import JOBS, Entry

DAY = 86_400.0
Kind = Literal["attempts", "resume", "reports"]
Results = Mapping[StageName, StageResult]


@dataclass(frozen=True)
class Limits:
    """For how many days what is kept; `report_days` None: as long as the job."""

    attempt_days: float
    report_days: float | None

    def due(self, decided_at: float, since: float, now: float) -> bool:
        """Whether a job whose last result is of `decided_at` has reached a limit between `since` and `now`."""
        return any(
            since < decided_at + days * DAY <= now for days in (self.attempt_days, self.report_days) if days is not None
        )


@dataclass(frozen=True)
class Heir:
    """A retry of a job, or a retry of that. `references`: what its results refer to."""

    ended: bool
    references: Set[str]


@dataclass(frozen=True)
class Decision:
    """What to delete, and why. `again`: something stays only for now, so the job is to be looked at again."""

    chosen: Mapping[Kind, Sequence[Entry]]
    again: bool = False

    @property
    def empty(self) -> bool:
        return not any(self.chosen.values())


def references(results: Results, *, without: StageName | None = None) -> frozenset[str]:
    """Everything in the ledger below `jobs/` that the events of `results` name: keys and prefixes."""
    return frozenset(
        name for stage, result in results.items() if stage != without for name in _named(result.event.data)
    )


def refers(names: Set[str], key: str) -> bool:
    """Whether one of `names` is the key, or a folder in which it lies."""
    parts = key.split("/")
    folders = ("/".join(parts[:count]) for count in range(1, len(parts)))
    return key in names or any(folder in names or f"{folder}/" in names for folder in folders)


def ended_at(results: Results) -> float | None:
    """When the job ended, in seconds since the epoch; None: it is under way."""
    for stage in STAGE_NAMES:
        result = results.get(stage)
        if result is not None and (result.outcome != "completed" or stage == STAGE_NAMES[-1]):
            return result.finished_at
    return None


def builds_on_parent(job_id: str, results: Results) -> bool:
    """Whether a retry refers to attempts of its parent that the parent's own results need not refer to: the stage that
    it began from may have gone on where an attempt of the parent ended. What it has adopted is the parent's own."""
    return any(
        name.startswith(JOBS) and not name.startswith(f"{JOBS}{job_id}/") and name.split("/")[2:3] == [stage]
        for stage, result in results.items()
        if result.attempt > 0
        for name in _named(result.event.data)
    )


def decide(
    listing: JobListing, results: Results, *, heirs: Sequence[Heir], named: bool, now: float, limits: Limits
) -> Decision:
    """What of a job to delete.

    `results`: all that `listing` shows. `named`: an alias names the model of the job, now or in its history.
    """
    ended = ended_at(results)
    under_way = any(not heir.ended for heir in heirs)
    theirs = frozenset(name for heir in heirs for name in heir.references)
    everything = references(results) | theirs
    old = ended is not None and now >= ended + limits.attempt_days * DAY
    reports = ended is not None and limits.report_days is not None and now >= ended + limits.report_days * DAY

    chosen: dict[Kind, list[Entry]] = {"attempts": [], "resume": [], "reports": []}
    kept = False
    for kind, written in _candidates(listing, results, old=old, reports=reports):
        names = references(results, without="evaluator") | theirs if kind == "reports" else everything
        waits = (kind == "attempts" and under_way) or (kind == "reports" and (named or under_way))
        if waits:
            kept = True
        elif not refers(names, written.entry.key):
            chosen[kind].append(written.entry)
    return Decision(chosen, again=kept)


def _candidates(listing: JobListing, results: Results, *, old: bool, reports: bool) -> Iterator[tuple[Kind, Written]]:
    """What would go if nobody referred to it, and why."""
    for written in listing.written:
        decided = results.get(written.stage)  # type: ignore[call-overload]  # None for a stage that is not known
        completed = decided is not None and decided.outcome == "completed"
        # of a training that failed, its last attempt keeps what it told, and not what a retry could have gone on from
        checkpoint = written.stage == "trainer" and written.rest.startswith(("resume/", "checkpoints/"))
        useless = decided is None or decided.attempt != written.attempt or (checkpoint and not completed)
        if completed and written.stage == "trainer" and written.rest.startswith("resume/"):
            yield "resume", written  # no attempt will begin again
        elif old and useless and written.stage in STAGE_NAMES:
            yield "attempts", written
        elif reports and completed and written.stage == "evaluator":
            yield "reports", written


def _named(data: Any) -> Iterator[str]:
    """Every text in the data of an event that names something below `jobs/`, from there on."""
    if isinstance(data, str):
        if (start := data.find(JOBS)) >= 0:
            yield data[start:]
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from _named(value)
    elif isinstance(data, Sequence):
        for value in data:
            yield from _named(value)
