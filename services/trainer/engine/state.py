"""The state of a run: what a checkpoint holds besides tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from services.trainer.domain.fits import ON_CPU, Fit
from services.trainer.domain.overfitting import Point
from services.trainer.domain.schedule import BestSoFar
from services.trainer.engine.checkpoints import STATE
from services.trainer.engine.messages import Lowered
from services.trainer.engine.model.compute import FLOAT32
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
    tokens: int = 0
    """Of all steps, without padding."""
    seconds: float = 0.0
    fit: Fit | None = None
    lowered: list[Lowered] = []
    """How often memory ran out after the first step."""
    compute: str | None = None
    """What the base computes in on a CPU, where that is chosen; None: on a GPU, or in an earlier version."""
    checkpoints: list[CheckpointInfo] = []
    job: str | None = None
    """The job whose budget counts; `job_began`: the step, seconds and tokens at which it began, if it continues the
    training of another one."""
    job_began: tuple[int, float, int] = (0, 0.0, 0)

    def of_job(self, job: str) -> State:
        """The same, continued by this job: what another one has spent does not count."""
        if self.job == job:
            return self
        return self.model_copy(update={"job": job, "job_began": (self.step, self.seconds, self.tokens)})

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
    theirs, mine = _settled(state.identity), _settled(identity)
    compared = set(mine) - _not_compared(theirs, mine)
    differing = sorted(_named(key, theirs.get(key), mine[key]) for key in compared if theirs.get(key) != mine[key])
    if differing:
        raise InputError(
            "checkpoint_mismatch",
            f"the checkpoint is of a run with other settings ({', '.join(differing)} differ): "
            "continue it with the plan it was made with, or start anew without resume_from",
            "resume_from",
        )
    return state


def quantization_of(checkpoint: Path) -> str | None:
    """The quantization of the base in the run that a checkpoint is of; None: it does not say."""
    try:
        found = json.loads((checkpoint / STATE).read_bytes())["identity"]["chosen"]["quantization"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _settled(identity: dict[str, Any]) -> dict[str, Any]:
    """Without the quantization that was asked for: `auto` may be what it was chosen to be, which is compared."""
    lora = identity.get("lora")
    if not isinstance(lora, dict):
        return identity
    return {**identity, "lora": {name: value for name, value in lora.items() if name != "quantization"}}


def _named(key: str, theirs: Any, mine: Any) -> str:
    """What differs, for people: of several choices, these."""
    if not isinstance(theirs, dict) or not isinstance(mine, dict):
        return key
    return ", ".join(f"{key}.{name}" for name in sorted(theirs | mine) if theirs.get(name) != mine.get(name))


def compute_of(checkpoint: Path) -> str | None:
    """The type that the run of a checkpoint computes in on a CPU; None: it has run on a GPU."""
    state = State.model_validate_json((checkpoint / STATE).read_bytes())
    return FLOAT32 if state.compute is None and state.fit in ON_CPU else state.compute


def _not_compared(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """What need not be compared. A job has the same rows for ever, and its retry has the same rows as the job; only
    plans that were made by hand, or by an older version, do not say which rows they are for."""
    both_known = one.get("rows") is not None and other.get("rows") is not None
    return {"job_id", "model"} if both_known else {"rows"}
