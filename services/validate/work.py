"""One attempt at the stage: download, check, split and upload. A file with problems fails the job with the first of
them."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from services.validate import metrics
from services.validate.background import in_thread, publishing_progress
from services.validate.check import Examined, examine, with_served, write_splits
from services.validate.domain.report import Report, error_of
from services.validate.page.page import page
from services.validate.reader import Source, source_row
from services.validate.scan import ScanControl
from services.validate.served import QUICK, Presence
from services.validate.survey.survey import survey
from services.validate.tokenizer import Tokenizer, load
from shared import disk, telemetry
from shared.base import ledger
from shared.errors import CorruptObject, InputError
from shared.events import DatasetValidated, Job, Reference, Served, Split
from shared.graders.embedded import check_graders
from shared.settings import Settings
from shared.stages.ledger import Ledger, file_of_content
from shared.stages.stage import Attempt

log = logging.getLogger(__name__)


class Objects(Ledger, Protocol):
    """What the stage needs of the object store."""

    async def download(self, reference: Reference, path: Path) -> None: ...

    async def put(self, key: str, data: bytes) -> Reference: ...

    async def upload(self, key: str, path: Path) -> Reference: ...


class ValidateWork:
    """One attempt at validating the dataset of a job."""

    def __init__(
        self,
        objects: Objects,
        settings: Settings,
        *,
        load_tokenizer: Callable[[str, str], Tokenizer] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.objects = objects
        self.settings = settings
        self.load_tokenizer = load_tokenizer or (lambda where, base: load(where, base, settings.model.profile))
        self.clock = clock
        self.presence = Presence(settings.render, clock)

    async def __call__(self, attempt: Attempt) -> DatasetValidated:
        """Validate the dataset.

        Raises:
            InputError: it has problems, or the base or the settings are wrong.
            TransientError: the object store, the model hub or the render server does not answer, or a disk is full.
            ConfigError: the model hub refuses us.
        """
        with disk.writing(tempfile.gettempdir(), "TMPDIR"):
            return await self._validate(attempt)

    async def _validate(self, attempt: Attempt) -> DatasetValidated:
        job, control = attempt.job, ScanControl()
        check_graders(job.spec.evaluation, self.settings.embeddings)
        location = self.settings.model.location_of(job.base)
        with tempfile.TemporaryDirectory(prefix="tunestream-validate-") as name:
            folder = Path(name)
            with telemetry.span("validate.download"):
                training = await self._download(job.rows, folder / "dataset", "training_file", job.dataset)
                validation = None
                if job.validation_rows is not None:
                    path = folder / "validation_file"
                    named = job.validation_file or job.validation_rows
                    validation = await self._download(job.validation_rows, path, "validation_file", named)
            async with publishing_progress(attempt, "surveying", control, self.clock, first="starting"):
                with telemetry.span("validate.survey"):
                    surveyed = await in_thread(
                        lambda: survey(
                            training,
                            validation,
                            spec=job.spec,
                            limits=self.settings.validation,
                            control=control,
                            folder=folder,
                        ),
                        control,
                    )
            training, validation = surveyed.training_file, surveyed.validation_file
            async with publishing_progress(attempt, "checking", control, self.clock):
                with telemetry.span("validate.load_tokenizer"):
                    tokenizer = await in_thread(lambda: self.load_tokenizer(location, job.base), control)
                with telemetry.span("validate.check"):
                    examined = await in_thread(
                        lambda: examine(
                            training,
                            validation,
                            surveyed=surveyed,
                            spec=job.spec,
                            tokenizer=tokenizer,
                            limits=self.settings.validation,
                            control=control,
                        ),
                        control,
                    )
            if examined.report.ok:
                examined = await self._compared(attempt, examined, training, validation, tokenizer, control)
            metrics.count(examined.report)
            html = await in_thread(lambda: page(examined, training, surveyed, tokenizer), control)
            document = examined.report.model_dump_json(indent=1).encode()
            report = await self.objects.put(f"{attempt.prefix}report.json", document)
            shown = await self.objects.put(f"{attempt.prefix}report.html", html.encode())
            if error := error_of(examined.report, f"{report.bucket}/{report.key}"):
                raise _traced(error, examined.report, training, validation) if job.prepared else error
            profile = await ledger.save(self.objects, tokenizer.profile)
            async with publishing_progress(attempt, "splitting", control, self.clock):
                with telemetry.span("validate.split"):
                    await in_thread(lambda: write_splits(examined, training, validation, folder, control), control)
            with telemetry.span("validate.upload"):
                splits = await self._upload(examined, folder, attempt.prefix)
        return _validated(job, examined, splits, report, profile.digest).model_copy(update={"page": shown})

    async def _compared(
        self,
        attempt: Attempt,
        examined: Examined,
        training: Source,
        validation: Source | None,
        tokenizer: Tokenizer,
        control: ScanControl,
    ) -> Examined:
        """Ask the render server about the rows, if there is one.

        Raises:
            TransientError: it does not answer, but may be starting.
        """
        # whether it answers is known by then, so it is not waited for
        render = self.settings.render.model_copy(update={"start_timeout_seconds": QUICK})

        def compare(silent: str | None = None) -> Examined:
            return with_served(
                examined,
                training,
                validation,
                tokenizer=tokenizer,
                render=render,
                seed=attempt.job.spec.seed,
                control=control,
                silent=silent,
            )

        if self.settings.render.url is None:
            compared = compare()
        else:
            silent = await in_thread(lambda: self.presence.look(tokenizer.base, control.stop), control)
            first = "asking the render server"
            async with publishing_progress(attempt, "comparing", control, self.clock, first=first):
                with telemetry.span("validate.compare"):
                    compared = await in_thread(lambda: compare(silent), control)
        said = str(compared.report.served)
        log.info("rows compared with the server", extra={"job_id": attempt.job.job_id, "reason": said})
        await attempt.progress(message=said)
        return compared

    async def _download(self, reference: Reference, path: Path, param: str, named: Reference) -> Source:
        """Download the rows of a file. `named`: the file as its user knows it."""
        try:
            await self.objects.download(reference, path)
        except CorruptObject:
            raise InputError(
                "file_changed",
                f"{reference.bucket}/{reference.key} is not what it was when the job was made: it was overwritten or "
                "deleted. Upload it again to start a new job.",
                param,
            ) from None
        return Source(path, file_of_content(named.key) or named.key.rsplit("/", 1)[-1])

    async def _upload(self, examined: Examined, folder: Path, prefix: str) -> dict[str, Split]:
        return {
            name: Split(
                reference=await self.objects.upload(f"{prefix}{name}.jsonl", folder / f"{name}.jsonl"),
                examples=side.examples,
                tokens=side.tokens,
            )
            for name, side in examined.report.splits.items()
        }


def _validated(
    job: Job, examined: Examined, splits: dict[str, Split], report: Reference, profile: str
) -> DatasetValidated:
    found = examined.report
    assert found.format is not None and found.method is not None, "a report without errors has a format"
    scans = [scanned for scanned in (examined.training, examined.validation) if scanned]
    return DatasetValidated(
        job_id=job.job_id,
        method=found.method,
        format=found.format,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        report=report,
        longest_tokens=max(scanned.longest for scanned in scans),
        max_length=found.max_length,
        estimated_seconds=found.estimate.seconds if found.estimate else None,
        base_profile=profile,
        served=Served.model_validate(found.served.model_dump()) if found.served else None,
        task=found.training.facts.task if found.training.facts else None,
    )


def _traced(error: InputError, report: Report, training: Source, validation: Source | None) -> InputError:
    """The same error, with the row of the user's own file that it is about."""
    of_validation = error.param == "validation_file" and report.validation is not None and validation is not None
    file, source = (report.validation, validation) if of_validation else (report.training, training)
    assert file is not None and source is not None
    line = next((problem.line for problem in file.problems if problem.severity == "error" and problem.line), None)
    row = source_row(source.path, line) if line else None
    if row is None:
        return error
    return InputError(error.code, f"{error.message} Line {line} was made of row {row} of {source.name}.", error.param)
