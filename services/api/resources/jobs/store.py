"""Lists jobs from the projection, and asks for the cancellation or for a retry of a job.

What a user asks for is written to the ledger, where it cannot get lost. It is also published on the bus, which is
faster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from services.api.database import Page, ProjectionDatabase, parse_state
from services.api.domain.state import JobState, Status, Unreadable
from services.api.domain.stored import read_manifest
from services.api.projection import Projection
from shared import ids
from shared.errors import AlreadyExists, ConfigError, EventRefused, StoreRefused, TransientError
from shared.events import RUNNER_STAGES, JobControl, Retry, StageName
from shared.stages.adoption import retry_of
from shared.stages.ledger import Ledger, asked_key, control_prefix, job_key, pending_key, retry_key
from shared.stages.publisher import Publisher

log = logging.getLogger(__name__)

NO_FILTER: Mapping[str, str] = MappingProxyType({})


async def list_jobs(
    database: ProjectionDatabase,
    project: str,
    *,
    limit: int,
    after: str | None,
    status: Status | None = None,
    metadata: Mapping[str, str] | None = NO_FILTER,
) -> Page[JobState | Unreadable] | None:
    """Visible jobs of a project, newest first, starting behind the job `after`; None when it has no such job.

    `metadata`: pairs that a job must have; None: only jobs without any.

    Raises:
        DatabaseBroken: the database does not work.
    """
    where, values = "project = :project AND visible = 1", dict[str, Any](limit=limit + 1, project=project)
    if metadata is None:
        where += " AND NOT " + _has_metadata()
    for number, (key, value) in enumerate((metadata or {}).items()):
        where += " AND " + _has_metadata(f"key = :key{number} AND value = :value{number}")
        values |= {f"key{number}": key, f"value{number}": value}
    if status is not None:
        where += " AND status = :status"
        values["status"] = status
    if after is not None:
        where += " AND (created_at, job_id) < (:created_at, :job_id)"
    columns = "job_id, created_at, status, state"
    query = f"SELECT {columns} FROM jobs WHERE {where} ORDER BY created_at DESC, job_id DESC LIMIT :limit"

    def select(connection: sqlite3.Connection) -> Page[JobState | Unreadable] | None:
        if after is not None:
            found = "SELECT created_at FROM jobs WHERE job_id = ? AND project = ?"
            cursor = connection.execute(found, (after, project)).fetchone()
            if cursor is None:
                return None
            values.update(created_at=cursor[0], job_id=after)
        rows = [
            parse_state(job_id, text) or Unreadable(job_id, created_at, found)
            for job_id, created_at, found, text in connection.execute(query, values)
        ]
        return Page(rows[:limit], len(rows) > limit)

    return await database.read(select)


def _has_metadata(where: str = "1") -> str:
    """SQL: whether a job has such a pair. A row that cannot be read has none."""
    pairs = f"EXISTS (SELECT 1 FROM json_each(state, '$.manifest.spec.metadata') WHERE {where})"
    return f"CASE WHEN json_valid(state) THEN {pairs} ELSE 0 END"


async def cancel(job: JobState, ledger: Ledger, bus: Publisher) -> None:
    """Ask for the job to end. There is one cancellation per job, so asking again changes nothing.

    Nobody waits for the bus: the owner of the job also reads the ledger whenever it renews its lease, and every stage
    that may still have to end the job finds a new entry in the index of open work.

    Raises:
        StoreUnavailable: the request may not have been written.
    """
    with contextlib.suppress(AlreadyExists):
        await ledger.create(
            f"{control_prefix(job.job_id)}cancel-1.json", ids.canonical({"at": ledger.now(), "by": "api"})
        )
    try:
        for stage in RUNNER_STAGES:
            if job.stage(stage).outcome is None:
                with contextlib.suppress(AlreadyExists):
                    await ledger.create(pending_key(stage, ledger.now(), job.job_id), b"{}")
    except (ConfigError, StoreRefused) as error:  # the cancellation itself is in the ledger
        log.error("no stage can be woken for a cancellation", extra={"job_id": job.job_id, "reason": str(error)})
    ring(job.job_id, "cancel", job.manifest.traceparent if job.manifest else None, bus)


_publishing: set[asyncio.Task[None]] = set()
"""Requests on their way to the bus; asyncio itself would forget them."""


def ring(job_id: str, action: Literal["cancel", "resume"], traceparent: str | None, bus: Publisher) -> None:
    """Publish a request that is in the ledger already. Nobody waits for it."""
    publishing = asyncio.create_task(_publish(job_id, action, traceparent, bus))
    _publishing.add(publishing)
    publishing.add_done_callback(_publishing.discard)


async def _publish(job_id: str, action: Literal["cancel", "resume"], traceparent: str | None, bus: Publisher) -> None:
    try:
        await bus.publish(
            JobControl(job_id=job_id, action=action),
            ce_id=ids.event_id(job_id, JobControl.topic, action, 1),
            subject=job_id,
            traceparent=traceparent,
        )
    except (TransientError, EventRefused) as error:  # whom it concerns reads the ledger, too
        log.warning("a request could not be published", extra={"job_id": job_id, "reason": type(error).__name__})


async def retry(
    parent: JobState, stage: StageName, projection: Projection, ledger: Ledger, bus: Publisher, traceparent: str
) -> JobState:
    """Ask for a new job that begins from `stage`. Returns it; ingest makes it within seconds, or within half a minute
    if its event is lost.

    It gets the next number `rerun` that no job has. If such a retry was asked for before, that one is the answer,
    unless it has failed or was cancelled.

    Raises:
        TransientError: the request may not have been written.
    """
    manifest = parent.manifest
    assert manifest is not None, "only a job with a manifest is found"
    wish = Retry(
        parent_job=parent.job_id, from_stage=stage, rerun=manifest.spec.rerun, at=ledger.now(), traceparent=traceparent
    )
    while True:
        wish = wish.model_copy(update={"rerun": wish.rerun + 1})
        asked = await _ask(ledger, retry_of(manifest, wish, traceparent).job_id, wish)
        if asked is None:
            continue
        job = retry_of(manifest, asked, asked.traceparent)
        state = await projection.refresh(job.job_id)
        if state is None or not state.visible:
            state = await projection.accept(job)
            ring(job.job_id, "resume", asked.traceparent, bus)
        if state.status not in ("failed", "cancelled"):
            return state


async def _ask(ledger: Ledger, job_id: str, wish: Retry) -> Retry | None:
    """Store the request for the job `job_id`. Returns what was asked for, now or before; None: the id is another
    job's."""
    key = retry_key(job_id)
    found = await ledger.get(key)
    if found is None:
        if await ledger.get(asked_key(job_id)):
            return None  # the api was asked for another job of the same dataset
        if made := await ledger.get(job_key(job_id)):
            # its request was deleted, because nobody needs it any more; or it is another job
            job = read_manifest(made[0])
            origin = (job.origin.parent_job, job.origin.from_stage) if job else None
            return wish if origin == (wish.parent_job, wish.from_stage) else None
        try:
            await ledger.create(key, wish.model_dump_json().encode())
            return wish
        except AlreadyExists:
            found = await ledger.get(key)
    if found is None:
        return None
    asked = Retry.model_validate_json(found[0])
    return asked if (asked.parent_job, asked.from_stage) == (wish.parent_job, wish.from_stage) else None
