"""From a dataset to a durable job and its event. Every step may be repeated without harm."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, replace

from pydantic import ValidationError

from services.ingest.announcer import Announcer
from services.ingest.domain import datasets
from services.ingest.domain.failures import UNREADABLE
from services.ingest.job_settings import CODE, MAX_BYTES, parse_spec, too_large
from services.ingest.preparation import Preparation
from shared import telemetry
from shared.drops import project_of, sidecars_of
from shared.errors import AlreadyExists, ConfigError, InputError, StoreRefused
from shared.events import (
    DatasetPointer,
    FolderReference,
    Job,
    JobSpec,
    Origin,
    Reference,
    StageResult,
)
from shared.jobs import manifest, models
from shared.settings import Settings
from shared.stages import outbox
from shared.stages.ledger import job_key
from shared.store.objects import ObjectStore


@dataclass(frozen=True)
class _Request:
    """What the user asked for, and what is wrong with it. A job is made even if there is a problem; it then fails with
    it."""

    spec: JobSpec
    base: str
    start_from: FolderReference | None = None
    notes: tuple[str, ...] = ()
    validation: Reference | None = None
    problem: InputError | None = None
    salt: str | None = None
    """Digest of settings that cannot be read. Without it they would all make the same job."""


@dataclass(frozen=True)
class _Text:
    """The text of settings, and its name for an error. `problem`: it cannot be read; `version` then tells it from
    others."""

    where: str
    content: bytes = b""
    problem: InputError | None = None
    version: str = ""


@dataclass(frozen=True)
class Made:
    """A job that is durable. `marker` is what its dataset's marker must hold, see `Announcer`."""

    job: Job
    marker: bytes


class Intake:
    """Makes jobs. It writes manifest, result and event in this order, so that no accepted dataset is lost."""

    def __init__(
        self, objects: ObjectStore, announcer: Announcer, settings: Settings, preparation: Preparation | None = None
    ) -> None:
        self._objects = objects
        self._preparation = preparation or Preparation(objects, settings.ingest)
        self._announcer = announcer
        self._settings = settings

    async def create_job(
        self,
        pointer: DatasetPointer,
        *,
        origin: Origin,
        spec: JobSpec | None = None,
        validation_file: DatasetPointer | None = None,
        traceparent: str | None = None,
    ) -> Made:
        """Make the job of a dataset, or find the one that exists, and announce it.

        `spec` None: the settings are looked for beside the dataset. `traceparent` is the caller's; the job becomes
        part of that trace.

        Raises:
            InputError: the dataset itself is not there, or can never be read, or is in the system's own bucket.
            StoreUnavailable, StoreRefused, ConfigError: it cannot be read now, or the ledger cannot be written.
        """
        root = telemetry.JobRoot(traceparent)
        datasets.check_dataset(pointer, self._objects.bucket)
        dataset = await self._describe(pointer)
        request = await self._read_request(pointer) if spec is None else self._request(spec)
        request = await self._resolve(request, validation_file, project_of(dataset.key))
        wanted = manifest.job_of(
            dataset,
            request.spec,
            validation_file=request.validation,
            base=request.base,
            start_from=request.start_from,
            notes=request.notes,
            organization=self._settings.model.organization,
            # a trial of a sweep is not evaluated; only the api asks for one
            origin=origin.model_copy(update={"sweep": None}),
            traceparent=root.traceparent,
            now=self._objects.now(),
            salt=request.salt,
        )
        wanted, problem = await self._prepared(wanted, request.problem)
        job, created = await self._create_manifest(wanted)
        if created:
            root.emit(job.job_id)
        # the span began together with the root, but its trace is known only now: an existing job keeps its first trace
        about = {"tunestream.job_id": job.job_id}
        with telemetry.span("ingest", job.traceparent, at=root.at, attributes=about) as current:
            result = await self._commit(job, problem)
            telemetry.set_outcome(current, result.outcome)
            return Made(job, await self._announcer.announce(result))

    async def _describe(self, pointer: DatasetPointer) -> Reference:
        try:
            return await self._objects.describe(pointer)
        except StoreRefused as error:  # archived, encrypted with a key that is disabled, a key that is too long, …
            place = f"{pointer.bucket}/{pointer.key}"
            raise InputError(
                UNREADABLE, f"The object store refuses to read {place} ({error.code}): {error}", "dataset"
            ) from None

    def _request(self, spec: JobSpec) -> _Request:
        return _Request(spec, self._settings.model.id)

    async def _read_request(self, pointer: DatasetPointer) -> _Request:
        """The request of the settings beside the dataset."""
        text = await self._read_settings(pointer)
        try:
            if text.problem:
                raise text.problem
            return self._request(parse_spec(text.content, text.where))
        except InputError as error:
            salt = hashlib.sha256(text.content + text.version.encode()).hexdigest()
            return replace(self._request(JobSpec()), problem=error, salt=salt)

    async def _read_settings(self, pointer: DatasetPointer) -> _Text:
        """The text of the settings: the sidecar, else the object's metadata `job`, else empty."""
        bucket = self._objects.at(pointer.bucket)
        for key in sidecars_of(pointer.key):
            try:
                entry = await bucket.stat(key)
                if entry is not None and entry.size > MAX_BYTES:
                    return _Text(key, problem=too_large(key), version=entry.etag)
                if entry is not None and (found := await bucket.get(key)):
                    return _Text(key, found[0])
            except (ConfigError, StoreRefused) as error:
                if isinstance(error, StoreRefused) and datasets.too_long_for_files(key):
                    continue  # this store cannot have it
                # the dataset could be read, so it is this object; training with other settings would help nobody
                message = (
                    f"{key} cannot be read; let ingest read it and edit it, or announce the dataset with a `spec`."
                )
                return _Text(key, problem=InputError(CODE, message), version=key)
        content = (await bucket.metadata(pointer.key)).get("job", "").encode("utf-8", "surrogatepass")
        return _Text("the object's metadata `job`", content)

    async def _resolve(self, request: _Request, validation_file: DatasetPointer | None, project: str) -> _Request:
        """Find the base, the adapter to start from and the validation file that the request names. The request keeps
        its first problem."""
        try:
            found = await models.resolve(self._objects, self._settings.model, request.spec.model, project)
            request = replace(request, base=found.base, start_from=found.start_from, notes=found.notes)
            if wanted := validation_file or request.spec.validation_file:
                datasets.check_validation_file(wanted, self._objects.bucket, project)
                request = replace(request, validation=await self._describe_validation(wanted))
        except InputError as error:
            request = replace(request, problem=request.problem or error)
        return request

    async def _describe_validation(self, wanted: DatasetPointer) -> Reference:
        try:
            return await self._objects.describe(wanted)
        except InputError as error:
            raise InputError("invalid_validation_file", error.message, "validation_file") from None
        except (ConfigError, StoreRefused, ValueError):  # ValueError: the client sends no such name
            # the dataset could be read, so the credentials are right: the user named a place that is forbidden or none
            message = f"{wanted.bucket}/{wanted.key} may not be read here; put it beside the dataset."
            raise InputError("invalid_validation_file", message, "validation_file") from None

    async def _prepared(self, job: Job, problem: InputError | None) -> tuple[Job, InputError | None]:
        """The job with files that the validator reads, unless there is a problem already, or the job exists."""
        if problem or await self._objects.exists(job_key(job.job_id)):
            return job, problem
        try:
            return await self._preparation.prepare(job), None
        except InputError as error:
            return job, error

    async def _create_manifest(self, job: Job) -> tuple[Job, bool]:
        """Create the manifest unless it exists. Returns the job as the ledger has it, and whether this call created
        it."""
        with contextlib.suppress(AlreadyExists):
            await self._objects.create(job_key(job.job_id), job.model_dump_json().encode())
            return job, True
        found = await self._objects.get(job_key(job.job_id))
        assert found is not None, "manifests are never deleted"
        try:
            return Job.model_validate_json(found[0]), False
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
            message = f"Its job {job.job_id} exists, but its manifest cannot be read: {field}. Raise `rerun`."
            raise InputError("unreadable_manifest", message, field) from None

    async def _commit(self, job: Job, problem: InputError | None) -> StageResult:
        """Commit ingest's result. Returns the one in the ledger; another replica may have decided it."""
        outcome, event = manifest.decided(job, problem)
        owner, now = self._announcer.owner, self._objects.now()
        return await outbox.commit(self._objects, outbox.result_of(job.job_id, "ingest", 1, owner, outcome, event, now))
