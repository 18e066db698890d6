"""From a dataset to a durable job and its event. Every step may be repeated without harm."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.ingest.domain import datasets, jobs
from services.ingest.job_settings import parse_spec
from services.ingest.trained import find_trained, is_tuned
from shared import telemetry
from shared.errors import AlreadyExists, ConfigError, InputError
from shared.events import (
    DatasetPointer,
    Event,
    FolderReference,
    Job,
    JobFailed,
    JobSpec,
    Origin,
    Reference,
    StageOutcome,
)
from shared.settings import Settings
from shared.stages import outbox
from shared.stages.ledger import job_key
from shared.stages.publisher import Publisher
from shared.store.objects import ObjectStore


@dataclass(frozen=True)
class _Request:
    """What the user asked for, and what is wrong with it. A job is made even if there is a problem; it then fails with
    it."""

    spec: JobSpec
    base: str
    start_from: FolderReference | None = None
    validation: Reference | None = None
    problem: InputError | None = None
    salt: str | None = None
    """Digest of settings that cannot be read. Without it they would all make the same job."""


class Intake:
    """Makes jobs. It writes manifest, result and event in this order, so that no accepted dataset is lost."""

    def __init__(self, objects: ObjectStore, bus: Publisher, settings: Settings, clock: Callable[[], float]) -> None:
        self._objects = objects
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._owner = f"{socket.gethostname()}/{os.getpid()}"

    async def create_job(
        self,
        pointer: DatasetPointer,
        *,
        origin: Origin,
        spec: JobSpec | None = None,
        validation_file: DatasetPointer | None = None,
        traceparent: str | None = None,
    ) -> Job:
        """Make the job of a dataset, or find the one that exists, and publish its event.

        `spec` None: the settings are looked for beside the dataset. `traceparent` is the caller's; the job becomes
        part of that trace.

        Raises:
            InputError: the dataset itself is not there.
        """
        root = telemetry.JobRoot(traceparent)
        dataset = await self._objects.describe(pointer)
        request = await self._read_request(pointer) if spec is None else self._request(spec)
        request = await self._resolve(request, validation_file)
        job, created = await self._create_manifest(
            jobs.job_of(
                dataset,
                request.spec,
                validation_file=request.validation,
                base=request.base,
                start_from=request.start_from,
                organization=self._settings.model.organization,
                origin=origin,
                traceparent=root.traceparent,
                now=self._clock(),
                salt=request.salt,
            )
        )
        if created:
            root.emit(job.job_id)
        # the span began together with the root, but its trace is known only now: an existing job keeps its first trace
        about = {"tunestream.job_id": job.job_id}
        with telemetry.span("ingest", job.traceparent, at=root.at, attributes=about) as current:
            telemetry.set_outcome(current, await self._commit(job, request.problem))
        return job

    def _request(self, spec: JobSpec) -> _Request:
        return _Request(spec, self._settings.model.id)

    async def _read_request(self, pointer: DatasetPointer) -> _Request:
        """The request of the settings beside the dataset."""
        text, where = await self._read_settings(pointer)
        try:
            return self._request(parse_spec(text, where))
        except InputError as error:
            return replace(self._request(JobSpec()), problem=error, salt=hashlib.sha256(text).hexdigest())

    async def _read_settings(self, pointer: DatasetPointer) -> tuple[bytes, str]:
        """The text of the settings, and its name for an error: the sidecar, else the object's metadata `job`, else
        empty."""
        bucket = self._objects.at(pointer.bucket)
        for key in datasets.sidecars_of(pointer.key):
            if found := await bucket.get(key):
                return found[0], key
        return (await bucket.metadata(pointer.key)).get("job", "").encode(), "the object's metadata `job`"

    async def _resolve(self, request: _Request, validation_file: DatasetPointer | None) -> _Request:
        """Find the base, the adapter to start from and the validation file that the request names. The request keeps
        its first problem."""
        asked, start = request.spec.model, None
        try:
            if asked is not None and is_tuned(asked):
                trained = await find_trained(self._objects, asked)
                asked, start = trained.base, trained.adapter
            request = replace(request, base=self._settings.model.base_of(asked), start_from=start)
            if wanted := validation_file or request.spec.validation_file:
                request = replace(request, validation=await self._describe_validation(wanted))
        except InputError as error:
            request = replace(request, problem=request.problem or error)
        return request

    async def _describe_validation(self, wanted: DatasetPointer) -> Reference:
        try:
            return await self._objects.describe(wanted)
        except InputError as error:
            raise InputError("invalid_validation_file", error.message, "validation_file") from None
        except ConfigError:  # the dataset could be read, so the credentials are right: the user named a forbidden place
            message = f"{wanted.bucket}/{wanted.key} may not be read here; put it beside the dataset."
            raise InputError("invalid_validation_file", message, "validation_file") from None

    async def _create_manifest(self, job: Job) -> tuple[Job, bool]:
        """Create the manifest unless it exists. Returns the job as the ledger has it, and whether this call created
        it."""
        with contextlib.suppress(AlreadyExists):
            await self._objects.create(job_key(job.job_id), job.model_dump_json().encode())
            return job, True
        found = await self._objects.get(job_key(job.job_id))
        assert found is not None, "manifests are never deleted"
        return Job.model_validate_json(found[0]), False

    async def _commit(self, job: Job, problem: InputError | None) -> str:
        """Commit ingest's result and publish its event. Returns the outcome in the ledger; another replica may have
        decided it."""
        event: Event = jobs.uploaded(job)
        if problem:
            event = JobFailed(
                job_id=job.job_id, stage="ingest", code=problem.code, message=problem.message, param=problem.param
            )
        outcome: StageOutcome = "failed" if problem else "completed"
        mine = outbox.result_of(job.job_id, "ingest", 1, self._owner, outcome, event, self._clock())
        result = await outbox.commit(self._objects, mine)
        await outbox.publish(self._objects, self._bus, result, self._owner)
        return result.outcome
