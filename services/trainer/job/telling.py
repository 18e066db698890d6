"""What a job says of its training, from the messages of the training process; not more often than a reader wants."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from services.trainer import metrics
from services.trainer.domain.memory_plan import estimate_in_words, shortage_in_words
from services.trainer.engine.messages import (
    AnyMessage,
    Estimated,
    HyperparametersChosen,
    MemoryLowered,
    PhaseBegan,
    Progress,
    Resumed,
    StepDone,
)
from shared.stages.stage import Attempt

log = logging.getLogger(__name__)

SHARE, SHORTEST_SECONDS, LONGEST_SECONDS = 0.01, 0.5, 5.0
"""A step is told when so large a share of the time of the training has passed since the last one, within these bounds:
of a short training nearly every step, of a long one a step every few seconds."""
FIGURES = {"tokens_per_second", "mfu", "memory_bytes", "peak_memory_bytes"}


class Telling:
    """Publishes the progress of one training. Every step is in `metrics.jsonl` and in the metrics of the service;
    `job.progress` tells the first and the last of a process, those that a validation follows, those that end an epoch,
    and between them one every few seconds."""

    def __init__(self, attempt: Attempt, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that only ever grow."""
        self._attempt = attempt
        self._clock = clock
        self._began: float | None = None
        """When the first step was told."""
        self._told_at = 0.0

    async def begin(self) -> None:
        """The training process was started. It says nothing until it has loaded its libraries."""
        await self._attempt.progress(message="training: start", data={"phase": "start"})

    async def hear(self, message: AnyMessage) -> None:
        """Publish a message of the training process, if it is time. Messages that only the service needs are left."""
        match message:
            case StepDone():
                metrics.record_step(message)
                metrics.record_figures(message)
                if self._is_due(message):
                    await self._step(message)
            case Progress():
                metrics.record_figures(message)
                await self._progress(message)
            case PhaseBegan():
                await self._attempt.progress(message=f"training: {message.phase}", data=message.fields())
            case HyperparametersChosen():
                await self._attempt.progress(data=message.fields())
            case Estimated():
                told = message.model_dump(exclude={"event", "at"}, exclude_none=True)
                words = estimate_in_words(message.memory_bytes, message.tokens_per_second, message.seconds)
                await self._attempt.progress(message=f"training: {words}", data={"estimate": told})
            case MemoryLowered():
                log.warning("memory ran out", extra={"job_id": self._attempt.job.job_id, "step": message.step})
                words = shortage_in_words(message.step, message.micro_tokens, recompute=message.recompute)
                await self._attempt.progress(message=f"training: {words}")
            case Resumed():
                await self._attempt.progress(message=f"continued from step {message.step}", step=message.step)

    def _is_due(self, step: StepDone) -> bool:
        now = self._clock()
        if self._began is None:
            self._began = now
        elif not self._is_mark(step):
            pause = min(max(SHARE * (now - self._began), SHORTEST_SECONDS), LONGEST_SECONDS)
            if now - self._told_at < pause:
                return False
        self._told_at = now
        return True

    @staticmethod
    def _is_mark(step: StepDone) -> bool:
        """Whether a reader would miss the step."""
        measured = step.valid_loss is not None or step.full_valid_loss is not None
        return measured or step.step == step.total_steps or (step.epoch >= 1 and step.epoch.is_integer())

    async def _step(self, step: StepDone) -> None:
        columns = {name: value for name, value in step.columns().items() if name not in ("step", "total_steps")}
        await self._attempt.progress(
            step=step.step, total_steps=step.total_steps, eta_seconds=step.eta_seconds, data=columns | _figures(step)
        )

    async def _progress(self, progress: Progress) -> None:
        counted = progress.model_dump(include={"phase", "seconds", "done", "total"}, exclude_none=True)
        await self._attempt.progress(
            step=progress.step,
            total_steps=progress.total_steps,
            eta_seconds=progress.eta_seconds,
            # one value, so that what was counted in a phase goes with it
            data={"progress": counted, **_figures(progress)},
        )


def _figures(message: StepDone | Progress) -> dict[str, Any]:
    return message.model_dump(include=FIGURES, exclude_none=True)
