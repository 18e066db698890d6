"""Which jobs have ended, told by the projection's database, so that the store is not asked."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from pydantic import ValidationError

from services.api.database import ProjectionDatabase
from services.api.domain.state import JobState
from services.api.domain.webhooks import EventType, WebhookEvent

BATCH = 50
"""Rows that are read at once; other readers of the database come in between."""

_TYPES: dict[str, EventType] = {
    "succeeded": "fine_tuning.job.succeeded",
    "failed": "fine_tuning.job.failed",
    "cancelled": "fine_tuning.job.cancelled",
}


class Ended(NamedTuple):
    """The end of a job of a project."""

    event: WebhookEvent
    project: str


class EndedJobs:
    """Every job that has ended according to the ledger, once: a job that was passed to `done` does not come again."""

    def __init__(self, database: ProjectionDatabase, mend: Callable[[str], None]) -> None:
        """`mend` is told of jobs whose row cannot be read. They come when it can."""
        self._database = database
        self._mend = mend
        self._done: set[str] = set()

    def forget(self) -> None:
        """Let all come again."""
        self._done = set()

    def done(self, ended: Ended) -> None:
        self._done.add(ended.event.job_id)

    async def new(self) -> AsyncIterator[Ended]:
        """Those that are not done. If there are none, this reads the ids alone."""
        query = "SELECT job_id FROM jobs WHERE visible = 1 AND settled = 1"
        ids = await self._database.read(lambda connection: [row[0] for row in connection.execute(query)])
        new = [job_id for job_id in ids if job_id not in self._done]
        for start in range(0, len(new), BATCH):
            for job_id, state in await self._states(new[start : start + BATCH]):
                if ended := _ended(state):
                    yield ended
                else:
                    self._mend(job_id)

    async def _states(self, ids: list[str]) -> list[tuple[str, JobState | None]]:
        def call(connection: sqlite3.Connection) -> list[tuple[str, JobState | None]]:
            query = f"SELECT job_id, state FROM jobs WHERE job_id IN ({', '.join('?' * len(ids))})"
            return [(job_id, _parsed(text)) for job_id, text in connection.execute(query, ids)]

        return await self._database.read(call)


def _parsed(text: str) -> JobState | None:
    try:
        return JobState.model_validate_json(text)
    except ValidationError:
        return None


def _ended(state: JobState | None) -> Ended | None:
    if state is None or state.manifest is None or state.final_outcome is None:
        return None
    kind = _TYPES.get(state.status)
    event = WebhookEvent(type=kind, job_id=state.job_id, at=state.final_outcome.at) if kind else None
    return Ended(event, state.manifest.project) if event else None
