"""Makes jobs, and reads what their lists show."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Mapping
from typing import Any

from services.api.database import ProjectionDatabase
from services.api.domain.state import JobState
from services.api.resources.dependencies import Dependencies
from services.api.resources.fine_tuning.asking import Asking, Sender
from services.api.resources.fine_tuning.domain.request import CreateJob
from services.api.resources.fine_tuning.files import file_for
from services.api.resources.jobs.store import ring
from shared import strict_json, telemetry
from shared.access.principal import Principal
from shared.events import Job, Origin
from shared.graders.embedded import check_graders
from shared.jobs import manifest, models


async def create_job(
    dependencies: Dependencies,
    asking: Asking,
    body: CreateJob,
    principal: Principal,
    *,
    most: int | None,
    sent: bytes,
    repeated: bool,
    traceparent: str,
) -> JobState:
    """Ask for a job, and show it. When this returns, the request is durable, and ingest makes the job.

    `most`: how many jobs the project may have under way by the limits of the key. `sent`: the bytes of the body.
    `repeated`: it is not the client's first try.

    Raises:
        InputError: a file, the model or a setting is wrong.
        TransientError: the request may not have been written.
    """
    objects, model, project = dependencies.objects, dependencies.model, principal.project
    check_graders(body.evaluation, dependencies.embeddings)
    training = await file_for(objects, body.training_file, project, "training_file")
    wanted = body.validation_file
    validation = await file_for(objects, wanted, project, "validation_file") if wanted else None
    spec = body.spec(validation.content if validation else None)
    found = await models.resolve(objects, model, body.model, project)
    root = telemetry.JobRoot(traceparent)

    def numbered(rerun: int) -> Job:
        return manifest.job_of(
            training.content,
            spec.model_copy(update={"rerun": rerun}),
            validation_file=validation.content if validation else None,
            base=found.base,
            start_from=found.start_from,
            notes=(*found.notes, *body.notes(dependencies.tracked)),
            organization=model.organization,
            origin=Origin(kind="api", source=principal.key_id),
            traceparent=root.traceparent,
            project=project,
            name=training.filename,
            now=objects.now(),
        )

    sender = Sender(principal.key_id, hashlib.sha256(sent).hexdigest())
    asked, new = await asking.ask(
        numbered, sender, repeated=repeated, admit=lambda: dependencies.admit_job(project, most)
    )
    job = asked.job
    if not new:
        return await dependencies.projection.look_up(job.job_id) or await dependencies.projection.accept(job)
    root.emit(job.job_id)
    ring(job.job_id, "resume", 1, job.traceparent, dependencies.bus)
    return await dependencies.projection.accept(job)


async def measured(
    database: ProjectionDatabase, job_id: str, steps: Collection[int]
) -> Mapping[int, Mapping[str, Any]]:
    """What was measured at these steps, by step, as far as the history tells.

    Raises:
        DatabaseBroken: the database does not work.
    """
    step = "CASE WHEN json_valid(data) THEN json_extract(data, '$.step') END"
    wanted = f"{step} IN (SELECT value FROM json_each(?))"
    query = f"SELECT data FROM messages WHERE job_id = ? AND type = 'metrics' AND {wanted} ORDER BY position"

    def select(connection: sqlite3.Connection) -> Mapping[int, Mapping[str, Any]]:
        found = [_read(data) for (data,) in connection.execute(query, (job_id, json.dumps(list(steps))))]
        return {each["step"]: each for each in found if isinstance(each.get("step"), int)}

    return await database.read(select)


def _read(text: str) -> Mapping[str, Any]:
    try:
        found = strict_json.loads(text)
    except strict_json.InvalidJson:
        return {}
    return found if isinstance(found, dict) else {}
