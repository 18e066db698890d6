"""Follow a job until it ends, through restarts of the api."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from cli.client import Json, NotFound, Unreachable
from cli.terminal import CliError
from services.api.domain.state import FINAL

POLL_SECONDS = 0.5
PAGE = 100

ACCEPT_SECONDS = 60.0
"""How long a job that was just submitted may be unknown: ingest looks every few seconds, and reads the file first."""

OUTAGE_SECONDS = 120.0
"""How long the api may be away: supervisord starts it again within seconds."""


class Jobs(Protocol):
    """What is needed of the client."""

    def job(self, job: str) -> Json: ...

    def events(self, job: str, after: str | None, limit: int = PAGE) -> list[Json]: ...


@dataclass(frozen=True)
class Snapshot:
    """The job (None: not known yet), what happened since the last snapshot, and what is the matter with the api."""

    job: Json | None
    events: list[Json]
    trouble: str = ""

    @property
    def final(self) -> bool:
        return self.job is not None and self.job["status"] in FINAL


def follow(
    client: Jobs,
    job: str,
    *,
    expected: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Snapshot]:
    """Snapshots every half second; the last one is final and holds all events. `expected`: it was just submitted.

    Raises:
        Unreachable: the api did not answer at first, or was away for too long.
        NotFound: there is no such job.
    """
    after: str | None = None
    known: Json | None = None
    reached = False
    good = clock()
    while True:
        try:
            # the job before its events: a job that is seen to be over has no event that comes later
            known = client.job(job)
            events = list(_all_events(client, job, after))
        except NotFound:
            if known is None and (not expected or clock() - good > ACCEPT_SECONDS):
                raise
            # a known job can only be missing while the api rebuilds what it knows
            reached = True
            yield Snapshot(known, [], "waiting for the job to be taken" if known is None else "the api is starting")
        except Unreachable as error:
            if not reached or clock() - good > OUTAGE_SECONDS:
                raise
            yield Snapshot(known, [], error.message)
        else:
            reached, good = True, clock()
            after = events[-1]["id"] if events else after
            snapshot = Snapshot(known, events)
            yield snapshot
            if snapshot.final:
                return
        sleep(POLL_SECONDS)


def _all_events(client: Jobs, job: str, after: str | None) -> Iterator[Json]:
    while page := client.events(job, after, PAGE):
        yield from page
        after = page[-1]["id"]
        if len(page) < PAGE:
            return


def failure(job: Json) -> CliError:
    """Why a job that did not succeed did not, in the api's words."""
    error = job.get("error") or {}
    if job["status"] == "cancelled":
        return CliError(f"{job['id']} was cancelled")
    code, param = error.get("code", "unknown"), error.get("param")
    where = f" ({param})" if param else ""
    return CliError(f"{code}{where}: {error.get('message', 'the api gave no reason')}")
