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
"""Seconds for which a job that was just submitted may be unknown: ingest looks every few seconds, then reads the
file."""

OUTAGE_SECONDS = 120.0
"""Seconds for which the api may fail to answer: supervisord starts it again within seconds."""


class Jobs(Protocol):
    """What `follow` needs of the client."""

    def job(self, job: str) -> Json: ...

    def events(self, job: str, after: str | None, limit: int = PAGE) -> list[Json]: ...


@dataclass(frozen=True)
class Snapshot:
    """The job (None: not known yet), the events since the last snapshot, and what is wrong with the api."""

    job: Json | None
    events: list[Json]
    trouble: str = ""

    @property
    def final(self) -> bool:
        """Whether the job is over. A newer api may have other final statuses, but it still says when the job
        finished."""
        return self.job is not None and (self.job["status"] in FINAL or self.job.get("finished_at") is not None)


def follow(
    client: Jobs,
    job: str,
    *,
    expected: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Snapshot]:
    """Yield a snapshot every half second until the job is over. Together the snapshots hold every event once.

    `expected`: the job was just submitted, so the api may not know it yet.

    Raises:
        Unreachable: the api did not answer at first, or was away for too long.
        NotFound: there is no such job.
    """
    after: str | None = None
    known: Json | None = None
    reached = False
    answered = clock()
    while True:
        try:
            # the job is read before its events: once it is over, it gets no more of them
            known = client.job(job)
            events = list(_all_events(client, job, after))
        except NotFound:
            if known is None and (not expected or clock() - answered > ACCEPT_SECONDS):
                raise
            # a job that was known can only be missing because the api rebuilds its projection
            reached = True
            yield Snapshot(known, [], "waiting for the job to be taken" if known is None else "the api is starting")
        except Unreachable as error:
            if not reached or clock() - answered > OUTAGE_SECONDS:
                raise
            yield Snapshot(known, [], error.message)
        else:
            reached, answered = True, clock()
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
    """The error of a job that did not succeed, in the api's words."""
    error = job.get("error") or {}
    if job["status"] == "cancelled":
        return CliError(f"{job['id']} was cancelled")
    if job["status"] != "failed" and not error:
        return CliError(f"{job['id']} ended: {job['status']}")
    code, param = error.get("code", "unknown"), error.get("param")
    where = f" ({param})" if param else ""
    return CliError(f"{code}{where}: {error.get('message', 'the api gave no reason')}")
