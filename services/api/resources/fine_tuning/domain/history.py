"""The events and the checkpoints of a job as JSON objects of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.api.domain.messages import STARTED, Message
from services.api.domain.projection import is_number
from services.api.domain.state import JobState
from services.api.resources.fine_tuning.domain.job import file_of
from services.api.resources.lists import whole_seconds
from shared import ids
from shared.events import TrainingCompleted

METRICS = (
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)


def event_view(message: Message, state: JobState) -> dict[str, Any]:
    """An entry of the history of a job."""
    text = message.message
    if text == STARTED["validate"] and state.manifest:
        text = f"{text}: {file_of(state.manifest.dataset)}"
    return {
        "id": message.id,
        "object": "fine_tuning.job.event",
        "created_at": whole_seconds(message.at),
        "level": message.level,
        "type": message.type,
        "message": text,
        "data": message.data or None,
    }


def checkpoint_views(state: JobState, measured: Mapping[int, Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
    """The checkpoints that answer as models, newest first; none until the training has ended. `measured`: by step, what
    was measured at it."""
    trained, outcome = state.event_of(TrainingCompleted), state.stage("trainer").outcome
    if trained is None or outcome is None:
        return ()
    return [
        {
            "id": checkpoint_id(state.job_id, checkpoint.step),
            "object": "fine_tuning.job.checkpoint",
            "created_at": whole_seconds(outcome.at),
            "fine_tuning_job_id": state.job_id,
            "fine_tuned_model_checkpoint": f"{trained.model}:ckpt-step-{checkpoint.step}",
            "step_number": checkpoint.step,
            "metrics": _metrics(
                checkpoint.step,
                {"train_loss": checkpoint.train_loss, "valid_loss": checkpoint.valid_loss}
                | dict(measured.get(checkpoint.step, {})),
            ),
        }
        for checkpoint in sorted(trained.checkpoints, key=lambda checkpoint: checkpoint.step, reverse=True)
    ]


def checkpoint_steps(state: JobState) -> Sequence[int]:
    trained = state.event_of(TrainingCompleted)
    return [checkpoint.step for checkpoint in trained.checkpoints] if trained else ()


def checkpoint_id(job_id: str, step: int) -> str:
    return f"ftckpt_{ids.derive('checkpoint', job_id, step)}"


def _metrics(step: int, data: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": step, **{name: data[name] for name in METRICS if is_number(data.get(name))}}
