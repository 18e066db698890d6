"""What an experiment tracker is told of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from services.trainer.engine.messages import StepDone

Outcome = Literal["completed", "failed", "interrupted"]
"""How an attempt ended; after `interrupted` another one may continue the run."""
NO_FIGURES = {"event", "at", "step", "total_steps", "eta_seconds", "skipped"}


@dataclass(frozen=True)
class Run:
    """A training in a tracker. Its name is the id of the job, so that all attempts are one run.

    `facts`: what the job is, by short names: base, model, method, trace. `parameters`: the hyperparameters that were
    chosen. `folder`: what the client writes for itself, gone after the attempt. `project`, `label`, `entity`, `tags`:
    as the job asks for them (`integrations` of OpenAI's API).
    """

    job_id: str
    folder: Path
    facts: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    project: str | None = None
    label: str | None = None
    entity: str | None = None
    tags: tuple[str, ...] = ()


class Tracker(Protocol):
    """One training in one tracker. All methods are called in one thread; they may take long, and may raise anything.
    After an error, the same call comes again."""

    def begin(self, run: Run, first_step: int) -> None:
        """Begin the run, or continue it; what was told of `first_step` and later ones is replaced, where that is
        possible."""
        ...

    def log(self, steps: Sequence[StepDone]) -> None:
        """Add the figures of finished steps. After a checkpoint that does not fit, they may begin again."""
        ...

    def end(self, outcome: Outcome) -> None:
        """Let go of the run, once everything is told."""
        ...


def figures(step: StepDone) -> dict[str, float]:
    """The figures of a step by name, those of `metrics.jsonl` and of the machine."""
    values = step.model_dump(exclude=NO_FIGURES, exclude_none=True)
    return {name: float(value) for name, value in values.items()}
