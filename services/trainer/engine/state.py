"""The state of a run: what a checkpoint holds besides tensors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from services.trainer.domain.overfitting import Point
from services.trainer.domain.schedule import BestSoFar
from services.trainer.engine.model.compute import FLOAT32
from services.trainer.engine.model.memory import ON_CPU, Fit
from shared.errors import InputError
from shared.events import CheckpointInfo


class State(BaseModel):
    """A run after `step` finished steps.

    The learning rate, the order of the rows and the position in that order follow from `step` and the plan.
    """

    identity: dict[str, Any]
    step: int = 0
    best: BestSoFar = BestSoFar()
    best_losses: list[float] = []
    """The loss of each validation row of the sample at the best validation."""
    points: list[Point] = []
    since_validation: tuple[float, int] = (0.0, 0)
    """The sum and the number of the training losses since the last validation."""
    skipped: int = 0
    """Steps that did not change the adapter, because their loss or gradient was not a finite number."""
    skipped_in_a_row: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0
    fit: Fit | None = None
    compute: str | None = None
    """What the base computes in on a CPU, where that is chosen; None: on a GPU, or in an earlier version."""
    checkpoints: list[CheckpointInfo] = []

    @property
    def changed(self) -> bool:
        """Whether a step has changed the adapter yet."""
        return self.step > self.skipped


def read_state(data: bytes, identity: dict[str, Any]) -> State:
    """The state in a checkpoint.

    Raises:
        InputError: `checkpoint_mismatch`: it belongs to a run with another `identity`, that is, other settings.
    """
    state = State.model_validate_json(data)
    compared = set(identity) - _not_compared(state.identity, identity)
    differing = sorted(key for key in compared if state.identity.get(key) != identity[key])
    if differing:
        raise InputError(
            "checkpoint_mismatch",
            f"the checkpoint is of a run with other settings ({', '.join(differing)} differ): "
            "continue it with the plan it was made with, or start anew without resume_from",
            "resume_from",
        )
    return state


def compute_of(data: bytes) -> str | None:
    """The type that the run of a checkpoint computes in on a CPU; None: it has run on a GPU."""
    state = State.model_validate_json(data)
    return FLOAT32 if state.compute is None and state.fit in ON_CPU else state.compute


def _not_compared(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """What need not be compared. A job has the same rows for ever, and its retry has the same rows as the job; only
    plans that were made by hand, or by an older version, do not say which rows they are for."""
    both_known = one.get("rows") is not None and other.get("rows") is not None
    return {"job_id", "model"} if both_known else {"rows"}
