"""Files that are not in a training format yet become datasets before their job is made.

The rows are written to `jobs/{job_id}/ingest/attempt-1/`, under a name that follows from their content, and the report
beside them decides: it is created once. The id of a job follows from what was dropped, so the same drop is the same
job, and a process that was killed half-way has only lost time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import posixpath
import tempfile
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from services.ingest import metrics
from services.ingest.sources.child import mine_apart
from services.ingest.sources.limits import SAMPLE_BYTES, Limits
from services.ingest.sources.readers.kinds import in_training_format
from services.ingest.sources.report import MiningReport
from shared import disk
from shared.errors import AlreadyExists, CorruptObject, InputError, TransientError
from shared.events import FrozenModel, Job, Prepared, Reference, Source
from shared.settings import IngestSettings
from shared.stages.ledger import attempt_prefix
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

Role = Literal["dataset", "validation_file"]
LOG_SECONDS = 30.0


class Mine(Protocol):
    """`mine_apart`, or another that does the same."""

    async def __call__(
        self,
        path: Path,
        out: Path,
        *,
        name: str,
        source: Source | None,
        limits: Limits,
        memory_bytes: int,
        on_progress: Callable[[int, float], None],
    ) -> MiningReport: ...


class MinedFile(FrozenModel):
    """One file of a job: the rows that were made of it, and how."""

    rows: Reference
    report: MiningReport


class Mined(FrozenModel):
    """`jobs/{job_id}/ingest/attempt-1/mining.json`, created once: what was made of the files of a job."""

    dataset: MinedFile | None = None
    validation_file: MinedFile | None = None


@dataclass(frozen=True)
class _File:
    reference: Reference
    source: Source | None

    @property
    def name(self) -> str:
        return posixpath.basename(self.reference.key)


class Preparation:
    """Makes the files of a job ready for the validator."""

    def __init__(self, objects: ObjectStore, settings: IngestSettings, mine: Mine = mine_apart) -> None:
        self._objects = objects
        self._settings = settings
        self._mine = mine
        self._turns = asyncio.Semaphore(settings.conversions)

    async def prepare(self, job: Job) -> Job:
        """The manifest of a job whose files can be read by the validator. Most are already, and nothing is done.

        Raises:
            InputError: a file cannot be read, or no row becomes an example.
            TransientError: the store does not answer, the disk is full, or the process that reads the file was killed.
        """
        files: dict[Role, _File] = {}
        source = job.spec.source
        if not await self._ready(job.dataset, source):
            files["dataset"] = _File(job.dataset, source)
        # settings for a table say nothing about a validation file that is in a training format
        if job.validation_file is not None and not await self._ready(job.validation_file, None):
            files["validation_file"] = _File(job.validation_file, source)
        if not files:
            return job
        key = attempt_prefix(job.job_id, "ingest", 1) + "mining.json"
        found = await self._objects.get(key)
        if found is None:
            mined = Mined.model_validate({role: await self._mined(job, role, file) for role, file in files.items()})
            with suppress(AlreadyExists):  # by another replica, whose report then counts
                await self._objects.create(key, mined.model_dump_json(indent=1).encode())
            found = await self._objects.get(key)
            assert found is not None, "what decides is never deleted"
        return _with(job, key, self._objects.bucket, *found)

    async def _ready(self, reference: Reference, source: Source | None) -> bool:
        head = b""
        try:
            async with aclosing(self._objects.stream(reference)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    head = piece[:SAMPLE_BYTES]
                    break
        except CorruptObject:
            return True  # it was overwritten; the validator says so
        return in_training_format(head, posixpath.basename(reference.key), source)

    async def _mined(self, job: Job, role: Role, file: _File) -> MinedFile:
        async with self._turns:
            with disk.writing(tempfile.gettempdir(), "TMPDIR"):
                try:
                    made = await self._convert(job, role, file)
                except InputError as error:
                    metrics.mined.labels("refused").inc()
                    if role == "validation_file":
                        raise InputError("invalid_validation_file", error.message, role) from None
                    raise
        metrics.mined.labels(made.report.form).inc()
        return made

    async def _convert(self, job: Job, role: Role, file: _File) -> MinedFile:
        log.info("reading a file that is not in a training format", extra={"job_id": job.job_id})
        with tempfile.TemporaryDirectory(prefix="tunestream-ingest-") as name:
            # the ending is kept: libraries tell spreadsheets by it
            path, out = Path(name) / f"file{posixpath.splitext(file.name)[1][:16]}", Path(name) / "rows.jsonl"
            try:
                await self._objects.download(file.reference, path)
            except CorruptObject:
                raise TransientError("the file was overwritten while it was read") from None
            report = await self._mine(
                path,
                out,
                name=file.name,
                source=file.source,
                limits=Limits(self._settings.max_unpacked_bytes),
                memory_bytes=self._settings.memory_bytes,
                on_progress=_logging(job.job_id),
            )
            digest = await asyncio.to_thread(_sha256, out)
            key = f"{attempt_prefix(job.job_id, 'ingest', 1)}{role}-{digest[:16]}.jsonl"
            return MinedFile(rows=await self._kept(key, out, digest), report=report)

    async def _kept(self, key: str, path: Path, digest: str) -> Reference:
        """Write the rows, unless they are there: written again, their ETag could change under a reader's hands."""
        entry, size = await self._objects.stat(key), path.stat().st_size
        if entry is None or entry.size != size:
            return await self._objects.upload(key, path)
        return Reference(bucket=self._objects.bucket, key=key, etag=entry.etag, size=size, sha256=digest)


def _with(job: Job, key: str, bucket: str, data: bytes, etag: str) -> Job:
    mined = Mined.model_validate_json(data)
    prepared = Prepared(
        dataset=mined.dataset and mined.dataset.rows,
        validation_file=mined.validation_file and mined.validation_file.rows,
        report=Reference(bucket=bucket, key=key, etag=etag, size=len(data), sha256=hashlib.sha256(data).hexdigest()),
    )
    reports = [file.report for file in (mined.dataset, mined.validation_file) if file is not None]
    said = [sentence for report in reports for sentence in report.sentences()]
    return job.model_copy(update={"prepared": prepared, "notes": (*job.notes, *said)})


def _logging(job_id: str) -> Callable[[int, float], None]:
    loop = asyncio.get_running_loop()
    last = loop.time()

    def on_progress(rows: int, share: float) -> None:
        nonlocal last
        if (now := loop.time()) - last >= LOG_SECONDS:
            last = now
            log.info("still reading a file", extra={"job_id": job_id, "count": rows, "reason": f"{share:.0%}"})

    return on_progress


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
