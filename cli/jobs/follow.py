"""Follow a job until it ends, through restarts of the api and outages of what it needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from cli.client import Json, NotFound, Unreachable, Waiting
from cli.terminal import CliError
from services.api.domain.state import FINAL

POLL_SECONDS = 0.5
PAGE = 100

ACCEPT_SECONDS = 300.0
"""Seconds for which a job that was just submitted may be unknown: ingest looks every few seconds, then reads the file;
and it may be about to start again."""

OUTAGE_SECONDS = 900.0
"""Seconds for which the api may fail to answer: supervisord starts it again within seconds, a new version of a stack
takes minutes. The job goes on meanwhile."""


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
        Unreachable: nothing answered at first, or the api was away for too long.
        NotFound: there is no such job.
    """
    history = _History(client, job)
    known: Json | None = None
    reached = False
    began = answered = clock()
    while True:
        try:
            # the job is read before its events: once it is over, it gets no more of them
            known = client.job(job)
            events = history.news()
        except NotFound:
            if known is None and (not expected or clock() - began > ACCEPT_SECONDS):
                raise
            # a job that was known can only be missing because the api rebuilds its projection
            reached, answered = True, clock()
            yield Snapshot(known, [], "waiting for the job to be taken" if known is None else "the api is starting")
        except Unreachable as error:
            reached = reached or isinstance(error, Waiting)
            if not reached or clock() - answered > OUTAGE_SECONDS:
                raise
            yield Snapshot(known, [], f"{error.message}; still trying")
        else:
            reached, answered = True, clock()
            snapshot = Snapshot(known, events)
            yield snapshot
            if snapshot.final:
                return
        sleep(POLL_SECONDS)


class _History:
    """The events of a job, each once."""

    def __init__(self, client: Jobs, job: str) -> None:
        self._client = client
        self._job = job
        self._after: str | None = None
        self._seen: set[str] = set()

    def news(self) -> list[Json]:
        """The events since the last call."""
        try:
            found = list(self._pages(self._after))
        except NotFound:
            if self._after is None:
                raise
            # the api has a new database, and Kafka no longer has the event after which we would continue
            found = list(self._pages(None))
        new = [event for event in found if event["id"] not in self._seen]
        self._seen.update(event["id"] for event in new)
        self._after = found[-1]["id"] if found else self._after
        return new

    def _pages(self, after: str | None) -> Iterator[Json]:
        while page := self._client.events(self._job, after, PAGE):
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
