"""Lists jobs from the projection, and asks for a job to be cancelled, paused, resumed or retried.

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
from typing import Any

from services.api.database import Page, ProjectionDatabase, parse_state
from services.api.domain.state import FINAL, JobState, Status, Unreadable
from services.api.domain.stored import read_manifest
from services.api.projection import Projection
from shared import control, ids
from shared.control import Action
from shared.errors import AlreadyExists, ConfigError, EventRefused, StoreRefused, TransientError
from shared.events import RUNNER_STAGES, JobControl, Retry, StageName
from shared.http.errors import ApiError
from shared.stages.adoption import retry_of
from shared.stages.ledger import Ledger, asked_key, job_key, pending_key, retry_key
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


async def cancel(job: JobState, ledger: Ledger, bus: Publisher, *, repeated: bool) -> None:
    """Ask for the job to end. There is one cancellation per job, so asking again changes nothing. `repeated`: the
    client has asked before, and the answer may have been lost; then the job may be cancelled already.

    Nobody waits for the bus: the owner of the job also reads the ledger whenever it renews its lease, and every stage
    that may still have to end the job finds a new entry in the index of open work.

    Raises:
        ApiError: the job has ended.
        StoreUnavailable: the request may not have been written.
    """
    if repeated and job.status == "cancelled":
        return
    _refuse_ended(job, "cancelled")
    await control.cancel(ledger, job.job_id)
    await _wake(job, "cancel", 1, ledger, bus)


async def pause(job: JobState, projection: Projection, ledger: Ledger, bus: Publisher) -> JobState:
    """Let a job rest, which is as the ledger has it now. Returns it as it is then; a job that is paused already stays
    as it is.

    Raises:
        ApiError: it has ended, or it is about to.
        TransientError: the request may not have been written.
    """
    _refuse_ended(job, "paused")
    number = await control.pause(ledger, job.job_id)
    if number is None:
        raise _refusal(f"Job {job.job_id} is being cancelled, so it cannot be paused.", "job_cancelled")
    if job.paused is None or job.paused.number < number:
        await _wake(job, "pause", number, ledger, bus)
    job = await projection.refresh(job.job_id) or job
    _refuse_ended(job, "paused")  # it ended at the same moment
    return job


async def resume(job: JobState, projection: Projection, ledger: Ledger, bus: Publisher, *, repeated: bool) -> JobState:
    """Let a paused job go on, which is as the ledger has it now. Returns it as it is then. `repeated`: the client has
    asked before, and the answer may have been lost; then the job may have gone on already.

    Raises:
        ApiError: it has ended, or it is not paused.
        TransientError: the request may not have been written.
    """
    if repeated and (await control.read(ledger, job.job_id)).resumed:
        return job
    _refuse_ended(job, "resumed")
    number = await control.resume(ledger, job.job_id)
    if number is None:
        message = f"Job {job.job_id} is not paused ({job.status}), so it cannot be resumed."
        raise _refusal(message, "job_not_paused")
    await _wake(job, "resume", number, ledger, bus)
    return await projection.refresh(job.job_id) or job


def _refuse_ended(job: JobState, what: str) -> None:
    if job.status in FINAL:
        message = f"Job {job.job_id} has already ended ({job.status}); only a job that is under way can be {what}."
        raise _refusal(message, "job_finished")


def _refusal(message: str, code: str) -> ApiError:
    """What the client would ask for in vain as often as it tries."""
    return ApiError(400, message, param="job_id", code=code, headers={"x-should-retry": "false"})


async def _wake(job: JobState, action: Action, number: int, ledger: Ledger, bus: Publisher) -> None:
    """Let the stages look at a job, whose user wants something that is in the ledger already: those that may have to
    end it, or the one that works on it."""
    stages = [stage for stage in RUNNER_STAGES if job.stage(stage).outcome is None]
    try:
        for stage in stages if action == "cancel" else stages[:1]:
            with contextlib.suppress(AlreadyExists):
                await ledger.create(pending_key(stage, ledger.now(), job.job_id), b"{}")
    except (ConfigError, StoreRefused) as error:
        log.error("no stage can be woken", extra={"job_id": job.job_id, "reason": str(error)})
    ring(job.job_id, action, number, job.manifest.traceparent if job.manifest else None, bus)


_publishing: set[asyncio.Task[None]] = set()
"""Requests on their way to the bus; asyncio itself would forget them."""


def ring(job_id: str, action: Action, number: int, traceparent: str | None, bus: Publisher) -> None:
    """Publish a request that is in the ledger already. Nobody waits for it."""
    publishing = asyncio.create_task(_publish(job_id, action, number, traceparent, bus))
    _publishing.add(publishing)
    publishing.add_done_callback(_publishing.discard)


async def _publish(job_id: str, action: Action, number: int, traceparent: str | None, bus: Publisher) -> None:
    try:
        await bus.publish(
            JobControl(job_id=job_id, action=action),
            ce_id=ids.event_id(job_id, JobControl.topic, action, number),
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
            ring(job.job_id, "resume", 1, asked.traceparent, bus)
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
