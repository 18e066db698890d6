"""The one way in: from a pointer to a durable job and its event. Every step may be repeated without harm."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable

from services.ingest.domain import datasets, jobs
from shared import outbox, telemetry
from shared.errors import AlreadyExists, ConfigError, InputError
from shared.events import DatasetPointer, Event, Job, JobFailed, JobSpec, Origin, Reference, StageOutcome
from shared.ledger import job_key
from shared.objects import ObjectStore
from shared.publisher import Publisher
from shared.settings import Settings


class Intake:
    """Makes jobs. The order is the promise: object, manifest, result, event."""

    def __init__(self, objects: ObjectStore, bus: Publisher, settings: Settings, clock: Callable[[], float]) -> None:
        self._objects = objects
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._owner = f"{socket.gethostname()}/{os.getpid()}"

    async def take(
        self,
        pointer: DatasetPointer,
        *,
        origin: Origin,
        spec: JobSpec | None = None,
        validation_file: DatasetPointer | None = None,
        traceparent: str | None = None,
    ) -> Job:
        """Make the job of a dataset, or find the one that is there, and announce it. `spec` None: look beside the
        dataset for settings.

        `traceparent`: of whoever asked, whose trace the job then becomes a part of.

        Raises:
            InputError: the dataset itself is not there.
        """
        root = telemetry.JobRoot(traceparent)
        dataset = await self._objects.describe(pointer)
        problem: InputError | None = None
        salt: str | None = None
        base = self._settings.model.id
        validation: Reference | None = None
        if spec is None:
            text, where = await self._settings_of(pointer)
            try:
                spec = jobs.parse_spec(text, where)
            except InputError as error:
                problem, spec, salt = error, JobSpec(), hashlib.sha256(text).hexdigest()
        try:
            base = self._settings.model.base_of(spec.model)
            if wanted := validation_file or spec.validation_file:
                validation = await self._validation(wanted)
        except InputError as error:
            problem = problem or error
        job, made = await self._manifest(
            jobs.job_of(
                dataset,
                spec,
                validation_file=validation,
                base=base,
                organization=self._settings.model.organization,
                origin=origin,
                traceparent=root.traceparent,
                now=self._clock(),
                salt=salt,
            )
        )
        if made:
            root.emit(job.job_id)
        # it began with the root, but only now is it certain which job's trace it belongs to
        about = {"tunestream.job_id": job.job_id}
        with telemetry.span("ingest", job.traceparent, at=root.at, attributes=about) as current:
            telemetry.set_outcome(current, await self._announce(job, problem))
        return job

    async def _settings_of(self, pointer: DatasetPointer) -> tuple[bytes, str]:
        """The sidecar's text, else the object's metadata `job`, else nothing; and what to call it in an error."""
        bucket = self._objects.at(pointer.bucket)
        for key in datasets.sidecars_of(pointer.key):
            if found := await bucket.get(key):
                return found[0], key
        return (await bucket.metadata(pointer.key)).get("job", "").encode(), "the object's metadata `job`"

    async def _validation(self, wanted: DatasetPointer) -> Reference:
        try:
            return await self._objects.describe(wanted)
        except InputError as error:
            raise InputError("invalid_validation_file", error.message, "validation_file") from None
        except ConfigError:  # the dataset could be read, so it is not the credentials: the user named a forbidden place
            message = f"{wanted.bucket}/{wanted.key} may not be read here; put it beside the dataset."
            raise InputError("invalid_validation_file", message, "validation_file") from None

    async def _manifest(self, job: Job) -> tuple[Job, bool]:
        """The job as it is in the ledger, and whether it came there just now."""
        with contextlib.suppress(AlreadyExists):
            await self._objects.create(job_key(job.job_id), job.model_dump_json().encode())
            return job, True
        found = await self._objects.get(job_key(job.job_id))
        assert found is not None, "manifests are never deleted"
        return Job.model_validate_json(found[0]), False

    async def _announce(self, job: Job, problem: InputError | None) -> str:
        """Returns the outcome."""
        event: Event = jobs.uploaded(job)
        if problem:
            event = JobFailed(
                job_id=job.job_id, stage="ingest", code=problem.code, message=problem.message, param=problem.param
            )
        outcome: StageOutcome = "failed" if problem else "completed"
        mine = outbox.result_of(job.job_id, "ingest", 1, self._owner, outcome, event, self._clock())
        result = await outbox.commit(self._objects, mine)
        await outbox.publish(self._objects, self._bus, result, self._owner, self._clock)
        return result.outcome
