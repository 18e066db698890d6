"""Lists jobs from the projection, and asks for the cancellation of a job.

A cancellation is written to the ledger, where it cannot get lost, and published on the bus, which is faster.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from typing import Any

from services.api.database import Page, ProjectionDatabase
from services.api.domain.state import JobState, Status
from services.api.domain.stored import read_state
from shared import ids
from shared.errors import AlreadyExists, TransientError
from shared.events import JobControl
from shared.stages.ledger import Ledger, control_prefix
from shared.stages.publisher import Publisher

log = logging.getLogger(__name__)


async def list_jobs(
    database: ProjectionDatabase, *, limit: int, after: JobState | None, status: Status | None
) -> Page[JobState]:
    """Visible jobs, newest first, starting behind `after`.

    Raises:
        DatabaseBroken: the database does not work.
    """
    where, values = "visible = 1", dict[str, Any](limit=limit + 1, status=status)
    if status is not None:
        where += " AND status = :status"
    if after is not None:
        # of the row, because its document may be damaged
        where += " AND (created_at, job_id) < (SELECT created_at, job_id FROM jobs WHERE job_id = :after)"
        values |= {"after": after.job_id}
    query = f"SELECT job_id, state FROM jobs WHERE {where} ORDER BY created_at DESC, job_id DESC LIMIT :limit"

    def select(connection: sqlite3.Connection) -> Page[JobState]:
        rows = [read_state(*row) for row in connection.execute(query, values)]
        return Page(rows[:limit], len(rows) > limit)

    return await database.read(select)


async def cancel(job: JobState, ledger: Ledger, bus: Publisher, now: float) -> None:
    """Ask for the job to end. There is one cancellation per job, so asking again changes nothing.

    Raises:
        StoreUnavailable: the request may not have been written.
    """
    with contextlib.suppress(AlreadyExists):
        await ledger.create(f"{control_prefix(job.job_id)}cancel-1.json", ids.canonical({"at": now, "by": "api"}))
    try:
        await bus.publish(
            JobControl(job_id=job.job_id, action="cancel"),
            ce_id=ids.event_id(job.job_id, JobControl.topic, "cancel", 1),
            subject=job.job_id,
            traceparent=job.manifest.traceparent if job.manifest else None,
        )
    except TransientError:  # the owner of the job also reads the ledger whenever it renews its lease
        log.warning("the cancellation could not be published", extra={"job_id": job.job_id})
