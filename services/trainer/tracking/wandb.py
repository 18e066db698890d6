"""Weights & Biases. The client reads its key and its mode from the environment (`WANDB_API_KEY`, `WANDB_MODE`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import wandb

from services.trainer.engine.messages import StepDone
from services.trainer.tracking.tracker import Outcome, Run, figures

FINISH_SECONDS = 30.0


class WeightsAndBiases:
    """Writes a run to a project; the one that a job names has precedence over `project`."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._run: Any = None

    def begin(self, run: Run, first_step: int) -> None:
        settings = wandb.Settings(
            # what it would tell of the machine and its code is that of the service, not of the training
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            x_disable_stats=True,
            x_disable_meta=True,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=False,
        )
        self._run = wandb.init(
            project=run.project or self._project,
            entity=run.entity,
            id=run.job_id,
            name=run.label or run.job_id,
            tags=list(run.tags) or None,
            config={**run.facts, **run.parameters},
            # the client sends what it writes there; without a network (`WANDB_MODE=offline`) WANDB_DIR keeps it
            dir=os.environ.get("WANDB_DIR") or str(run.folder),
            resume="allow",
            reinit="create_new",
            settings=settings,
        )
        # a run takes no step twice, but a training that continues does, from its last checkpoint
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, steps: Sequence[StepDone]) -> None:
        for step in steps:
            self._run.log({"step": step.step, **figures(step)})

    def end(self, outcome: Outcome) -> None:
        if outcome == "interrupted":
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if outcome == "completed" else 1)
