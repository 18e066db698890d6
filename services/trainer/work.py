"""One attempt at the stage: download the splits, run the training process, upload what it made."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.trainer import metrics
from services.trainer.domain.plan import Base, Plan
from services.trainer.engine.messages import (
    CheckpointWritten,
    ErrorDocument,
    ExitCode,
    Resumed,
    TrainingResult,
)
from services.trainer.engine.report.speeds import NAME as SPEEDS
from services.trainer.job import folders, gpu_turn
from services.trainer.job.ahead import ProcessAhead
from services.trainer.job.found import Clock, Found, find_checkpoints
from services.trainer.job.process import TrainingProcess
from services.trainer.job.spans import PhaseSpans
from services.trainer.job.telling import Telling
from services.trainer.job.uploads import CheckpointUploads
from services.trainer.served import served_linears
from services.trainer.tracking.trackers import Trackers, makers
from shared import disk, ids, telemetry
from shared.base import ledger
from shared.errors import ConfigError, CorruptObject, InputError, TransientError
from shared.events import DatasetValidated, FolderReference, Job, Reference, TrainingCompleted, TrainingUsage
from shared.settings import Settings
from shared.stages.adoption import attempts_of_parents
from shared.stages.stage import Attempt
from shared.store.objects import ObjectStore
from shared.store.patience import when_the_store_answers

log = logging.getLogger(__name__)

ARTIFACTS = ("curves.png", "metrics.jsonl", "results.csv", "preview.txt", "hyperparameters.json")
WORK_DIR = "TUNESTREAM_TRAINER__WORK_DIR"


@dataclass(frozen=True)
class _Earlier:
    """What an attempt takes over from earlier ones. `resume_from`: the folder to continue from, on the disk; `listed`:
    the listed checkpoints up to there; `clocks`: the clock checkpoints of the job, the best last."""

    resume_from: Path | None
    listed: dict[int, FolderReference]
    clocks: list[Clock]


class TrainWork:
    """One attempt at the stage: takes `dataset.validated`, returns `training.completed`.

    Raises:
        InputError: the data, the settings or the base are wrong; the training process says what to change.
        TransientError: the process was stopped from outside, a disk or the GPU's memory is full, the hub or the store
            does not answer, or the GPU was lost: try again. While a training runs, and after it, the store may be away.
        RuntimeError: the process crashed.
    """

    def __init__(self, objects: ObjectStore, settings: Settings, ahead: ProcessAhead | None = None) -> None:
        """`ahead`: has a process that was started before; None: each is started when its job comes."""
        self._objects = objects
        self._settings = settings
        self._ahead = ahead

    async def __call__(self, attempt: Attempt) -> TrainingCompleted:
        work_dir = self._settings.trainer.work_dir.absolute()
        with disk.writing(work_dir, WORK_DIR):
            await asyncio.to_thread(folders.remove_unused, work_dir)
            async with folders.attempt_folder(work_dir, attempt.job.job_id, attempt.number) as folder:
                return await self._attempt(attempt, folder)

    async def _attempt(self, attempt: Attempt, folder: Path) -> TrainingCompleted:
        """Only the training process holds the GPU's turn; what needs the store comes before and after."""
        asked = DatasetValidated.model_validate(attempt.request)
        location = self._settings.model.location_of(attempt.job.base)
        with telemetry.span("trainer.download"):
            earlier = await self._earlier(attempt, folder)
            plan = await self._plan(attempt.job, asked, location, folder, earlier.resume_from)
        keep = self._settings.trainer.keep_checkpoints
        async with (
            Trackers(attempt, self._settings, folder, makers(self._settings.tracking)) as trackers,
            CheckpointUploads(self._objects, attempt, folder / "out", keep, earlier.clocks) as uploads,
        ):
            async with gpu_turn.hold(self._objects.for_leases(), self._settings, attempt):
                listed = await self._train_or_start_anew(attempt, plan, folder, uploads, trackers, earlier.listed)
            with telemetry.span("trainer.upload"):
                await attempt.progress(message="training: upload")
                await uploads.complete()
                return await self._upload_result(attempt, asked, folder / "out", {**listed, **uploads.listed})

    # --- plan ------------------------------------------------------------------------------------------------------

    async def _plan(
        self, job: Job, asked: DatasetValidated, location: str, folder: Path, resume_from: Path | None
    ) -> Plan:
        """Download the splits and make the plan of their training."""
        train = folder / "train.jsonl"
        await self._objects.download(asked.train.reference, train)
        validation = None
        if asked.validation is not None and asked.validation.examples:
            validation = folder / "validation.jsonl"
            await self._objects.download(asked.validation.reference, validation)
        start = await self._fetch_start(job.start_from, folder) if job.start_from else None
        profile = await ledger.load(self._objects, asked.base_profile) if asked.base_profile else None
        return Plan(
            job_id=job.job_id,
            model=job.model,
            base=Base(id=job.base, location=location),
            method=asked.method,
            format=asked.format,
            train=str(train),
            validation=str(validation) if validation else None,
            rows=ids.derive("rows", *(split and split.reference.sha256 for split in (asked.train, asked.validation))),
            hyperparameters=job.spec.hyperparameters,
            lora=job.spec.lora,
            # an older validate service names no profile; then the settings say it
            chat_template_kwargs=(profile or self._settings.model.profile).chat_template_kwargs,
            served_linears=served_linears(job.base, profile),
            max_length=asked.max_length,
            seed=job.spec.seed,
            budget=job.spec.budget,
            price_per_gpu_hour=self._settings.trainer.price_per_gpu_hour,
            train_examples=asked.train.examples,
            train_tokens=asked.train.tokens,
            served=asked.served,
            max_lora_rank=self._settings.vllm.max_lora_rank,
            served_memory=self._settings.vllm.gpu_memory_utilization if self._settings.gpu.share == "split" else 0.0,
            resume_from=str(resume_from) if resume_from else None,
            start_from=str(start) if start else None,
            encoded=str(self._settings.trainer.work_dir.absolute() / "encoded"),
            speeds=str(self._settings.trainer.work_dir.absolute() / SPEEDS),
            device="cpu" if self._settings.trainer.gpu == "cpu" else "auto",
            threads=self._settings.trainer.threads,
            gpus=1 if self._settings.trainer.gpu == "cpu" else self._settings.trainer.gpus,
        )

    async def _earlier(self, attempt: Attempt, folder: Path) -> _Earlier:
        """Find what earlier attempts left, and download the checkpoint to continue from.

        It is the newest of an earlier attempt, else of the job that this one is a retry of. The parent's may be further
        than ours; but then they did not fit, because ours would have continued them.
        """
        parents = await attempts_of_parents(self._objects, attempt.job, "trainer")
        resume_from, last, ours = await self._fetch_newest(attempt.earlier, folder)
        if resume_from is None:
            resume_from, last, theirs = await self._fetch_newest(parents, folder)
        else:
            theirs = await find_checkpoints(self._objects, parents)
        listed = {**theirs.listed, **ours.listed}
        return _Earlier(resume_from, {step: listed[step] for step in sorted(listed) if step <= last}, ours.clocks)

    async def _fetch_newest(self, attempts: Sequence[str], folder: Path) -> tuple[Path | None, int, Found]:
        """Download the newest checkpoint that is intact. Returns its folder and its step (None and 0: there is none),
        and all that was found. A damaged one costs only the steps since the previous one."""
        tried: set[str] = set()
        while True:
            # again after each failure: its attempt may live, and have replaced it by a newer one meanwhile
            found = await find_checkpoints(self._objects, attempts)
            step, newest = next((state for state in found.states if state[1].prefix not in tried), (0, None))
            if newest is None:
                return None, 0, found
            target = folder / "resume" / str(len(tried)) / f"step-{step}"
            try:
                await self._objects.download_folder(newest, target)
                return target, step, found
            except CorruptObject:
                log.warning("corrupt checkpoint skipped", extra={"step": step})
                tried.add(newest.prefix)

    async def _fetch_start(self, adapter: FolderReference, folder: Path) -> Path:
        """Download the adapter that the training starts from."""
        try:
            await self._objects.download_folder(adapter, folder / "start")
        except CorruptObject:
            message = (
                "the adapter of the model to start from is gone or damaged; start from another one, or from a base"
            )
            raise InputError("start_unreadable", message, "model") from None
        return folder / "start"

    # --- the process -----------------------------------------------------------------------------------------------

    async def _train_or_start_anew(
        self,
        attempt: Attempt,
        plan: Plan,
        folder: Path,
        uploads: CheckpointUploads,
        trackers: Trackers,
        listed: dict[int, FolderReference],
    ) -> dict[int, FolderReference]:
        """Train, if need be from the beginning. Returns those of the `listed` checkpoints of earlier attempts that are
        of this training."""
        try:
            await self._train(attempt, plan, folder, uploads, trackers)
        except InputError as error:
            if error.code != "checkpoint_mismatch":
                raise
            # Another version of the trainer made the checkpoint. That is not the user's fault and costs only time.
            log.warning("checkpoint does not fit, starting from the beginning", extra={"job_id": attempt.job.job_id})
            anew = plan.model_copy(update={"resume_from": None})
            await self._train(attempt, anew, folder, uploads, trackers)
            return {}
        return listed

    async def _train(
        self, attempt: Attempt, plan: Plan, folder: Path, uploads: CheckpointUploads, trackers: Trackers
    ) -> None:
        out = folder / "out"
        plan_path = folder / "plan.json"
        plan_path.write_text(plan.model_dump_json())
        telling = Telling(attempt)
        with PhaseSpans("start") as spans:
            process = await self._ahead.take(plan_path, out) if self._ahead else None
            if process is None:
                process = await TrainingProcess.start(
                    plan_path, out, gpu=self._settings.trainer.gpu, threads=self._settings.trainer.threads
                )
            log.info("training process started", extra={"job_id": attempt.job.job_id, "pid": process.pid})
            await telling.begin()
            try:
                with metrics.training():
                    async for message in process.messages():
                        spans.observe(message)
                        if isinstance(message, Resumed) and plan.resume_from:
                            shutil.rmtree(plan.resume_from, ignore_errors=True)  # it is in the process's memory
                        if isinstance(message, CheckpointWritten):
                            uploads.add(message)
                        await telling.hear(message)
                        await trackers.hear(message)
                code = await process.wait()
            except asyncio.CancelledError:
                if not attempt.abandoned:  # else another attempt may begin, and would find the GPU's memory full
                    await self._stop(process, uploads)
                raise
            finally:
                await process.release()
            raise_for_exit_code(code, process.trace, out)

    async def _stop(self, process: TrainingProcess, uploads: CheckpointUploads) -> None:
        """Let the process write a checkpoint within the grace period; it is uploaded within what is left of it."""
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(uploads.deadline()):
                async for message in process.messages():
                    if isinstance(message, CheckpointWritten):
                        uploads.add(message)

    # --- result ----------------------------------------------------------------------------------------------------

    async def _upload_result(
        self, attempt: Attempt, asked: DatasetValidated, out: Path, checkpoints: dict[int, FolderReference]
    ) -> TrainingCompleted:
        result = TrainingResult.model_validate_json((out / "result.json").read_bytes())

        async def say(why: str) -> None:
            await attempt.progress("waiting", f"the training is done and waits to be uploaded: {why}")

        async def upload(name: str) -> Reference:
            key = f"{attempt.prefix}{name}"
            return await when_the_store_answers(lambda: self._objects.upload(key, out / name), say)

        key = f"{attempt.prefix}adapter/"
        adapter = await when_the_store_answers(lambda: self._objects.upload_folder(key, out / "adapter"), say)
        artifacts = {name: await upload(name) for name in ARTIFACTS}
        return TrainingCompleted(
            job_id=attempt.job.job_id,
            model=attempt.job.model,
            base=attempt.job.base,
            method=asked.method,
            adapter=adapter,
            rank=result.rank,
            steps=result.steps,
            epochs=result.epochs,
            trained_tokens=result.trained_tokens,
            train_loss=result.train_loss,
            valid_loss=result.valid_loss,
            overfitting=result.overfitting,
            hyperparameters=result.hyperparameters,
            checkpoints=tuple(
                info.model_copy(update={"prefix": checkpoints[info.step].prefix})
                for info in result.checkpoints
                if info.step in checkpoints
            ),
            artifacts=artifacts,
            test=asked.test,
            train=asked.train,
            seconds=result.seconds,
            skipped_steps=result.skipped_steps,
            diverged_at=result.diverged_at,
            usage=TrainingUsage.model_validate(
                result.model_dump(include=set(TrainingUsage.model_fields)) | {"device": result.device or "unknown"}
            ),
            base_profile=asked.base_profile,
            served=asked.served,
            project=attempt.job.project,
        )


def raise_for_exit_code(code: int, trace: str, out: Path) -> None:
    """Raise the error that the exit code stands for, if any. `trace`: where the process crashed.

    Raises:
        InputError: the process found the input wrong.
        TransientError: it was stopped from outside, or something that it needs does not answer.
        ConfigError: a setting is wrong.
        RuntimeError: it crashed.
    """
    if code == ExitCode.DONE:
        return
    if code == ExitCode.WRONG_INPUT:
        raise ErrorDocument.model_validate_json((out / "error.json").read_bytes()).exception()
    if code == ExitCode.UNAVAILABLE:
        raise TransientError(ErrorDocument.model_validate_json((out / "error.json").read_bytes()).message)
    if code == ExitCode.WRONG_SETTING:
        raise ConfigError(ErrorDocument.model_validate_json((out / "error.json").read_bytes()).message)
    if code == ExitCode.NO_SPACE:
        raise TransientError(
            f"a disk is full: that of {out} ({WORK_DIR}), or that of the model hub's cache (HF_HOME); make room"
        )
    if code == ExitCode.PROCESS_LOST:
        lost = ErrorDocument.model_validate_json((out / "error.json").read_bytes())
        raise RuntimeError(f"{lost.message}; {trace}")
    if code == ExitCode.STOPPED:
        raise TransientError("the training process was told to stop by a signal from outside (SIGTERM)")
    if code < 0:
        raise RuntimeError(f"the training process was ended by signal {-code} (9: often, memory ran out); {trace}")
    raise RuntimeError(f"the training process ended with exit code {code}: {trace}")
