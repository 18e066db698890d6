"""Which entries the index of open work lacks. Whoever commits a result writes the entry of the next stage; this finds
what an older version, or one that died in between, has not written."""

from __future__ import annotations

from collections.abc import Collection

from services.api.domain.walk import JobListing
from shared.events import NEXT_STAGE, RUNNER_STAGES, StageName, StageResult
from shared.stages.ledger import pending_entry, pending_key

Listed = Collection[tuple[str, str]]
"""Stage and job of each entry that is there."""


def entry_of(key: str) -> tuple[str, str] | None:
    """Stage and job of an entry; None: it is none."""
    parsed = pending_entry(key)
    return (parsed[0], parsed[2]) if parsed else None


def undecided(listing: JobListing, listed: Listed) -> StageName | None:
    """The stage whose result tells whether an entry is missing; None: the listing shows that none is.

    That is the last one that has a result, if another stage follows which has no entry.
    """
    last = listing.last
    after = NEXT_STAGE.get(last) if last and listing.has_manifest else None
    return last if after and (after, listing.job_id) not in listed else None


def missing(listing: JobListing, listed: Listed, last: StageResult | None) -> list[str]:
    """The keys of the entries that are missing. `last`: the result of `undecided`, if there is one. Ingest has no part
    of the index: its markers tell it what is not published."""
    keys = [
        pending_key(stage, listing.results[stage].modified, listing.job_id)
        for stage in listing.unpublished
        if stage in RUNNER_STAGES and listing.has_manifest and (stage, listing.job_id) not in listed
    ]
    if last is not None and last.outcome == "completed" and (after := NEXT_STAGE.get(last.stage)):
        keys.append(pending_key(after, last.finished_at, listing.job_id))
    return keys
