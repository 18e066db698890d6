"""The messages and documents that the training process sends to the service."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from services.trainer.engine.messages import (
    CheckpointWritten,
    Completed,
    ErrorDocument,
    Estimated,
    Failed,
    HyperparametersChosen,
    MemoryLowered,
    Message,
    PhaseBegan,
    Resumed,
    Started,
    StepDone,
    StepRow,
    Stopped,
    TrainingResult,
    parse_message,
)
from shared.errors import InputError

STEP = {
    "step": 3,
    "total_steps": 20,
    "epoch": 0.15,
    "train_loss": 1.5,
    "train_mean_token_accuracy": 0.5,
    "learning_rate": 0.001,
    "grad_norm": 0.25,
    "tokens": 512,
    "tokens_per_second": 128.0,
}
VALIDATED = {**STEP, "valid_loss": 1.25, "valid_mean_token_accuracy": 0.75}
SKIPPED = {
    "step": 3,
    "total_steps": 20,
    "epoch": 0.15,
    "learning_rate": 0.001,
    "tokens": 512,
    "tokens_per_second": 128.0,
    "skipped": True,
}
COMPLETED = {
    "steps": 20,
    "train_loss": 1.5,
    "valid_loss": None,
    "saved_step": 20,
    "stopped_early": False,
    "seconds": 12.5,
    "skipped_steps": 2,
    "diverged_at": None,
    "verdict": "unknown",
    "reason": "there was no validation data",
}


@pytest.mark.parametrize(
    ("kind", "event", "fields"),
    [
        (Started, "started", {"device": "cpu", "model": "ft:b:o::1", "base": "b", "method": "dpo"}),
        (PhaseBegan, "phase", {"phase": "load"}),
        (Estimated, "estimated", {"memory_bytes": 2**34, "tokens_per_second": 5.5, "seconds": 9.0}),
        (MemoryLowered, "memory_lowered", {"step": 3, "micro_tokens": 0, "recompute": True}),
        (PhaseBegan, "phase", {"phase": "fit", "micro_tokens": 4096, "recompute": True}),
        (
            HyperparametersChosen,
            "hyperparameters",
            {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.0, "beta": 0.1},
        ),
        (Resumed, "resumed", {"step": 10}),
        (StepDone, "step", {**STEP, "eta_seconds": 9.5}),
        (StepDone, "step", {**VALIDATED, "eta_seconds": 9.5}),
        (StepDone, "step", {**SKIPPED, "eta_seconds": 9.5}),
        (CheckpointWritten, "checkpoint", {"path": "step-3", "step": 3, "train_loss": 1.5, "valid_loss": None}),
        (Stopped, "stopped", {}),
        (Completed, "completed", COMPLETED),
        (Failed, "error", {"code": "over_length", "message": "shorten them", "param": None}),
    ],
)  # fmt: skip
def test_a_message_is_one_line_of_json_and_comes_back_equal(
    kind: type[Message], event: str, fields: dict[str, object]
) -> None:
    message = kind.model_validate({"at": 5.5, **fields})
    assert list(json.loads(message.line()).items()) == [("event", event), ("at", 5.5), *fields.items()]
    assert "\n" not in message.line()
    parsed = parse_message(message.line().encode() + b"\n")
    assert type(parsed) is kind
    assert parsed == message
    assert parsed.fields() == fields


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_no_message(odd: float) -> None:
    fields = {"at": 1, **VALIDATED, "valid_loss": odd, "eta_seconds": 0}
    with pytest.raises(ValidationError, match="finite"):
        StepDone.model_validate(fields)
    with pytest.raises(ValidationError, match="finite"):
        parse_message(json.dumps({"event": "step", **fields}))


@pytest.mark.parametrize(
    "line",
    [
        b"Loading weights: 100%\n",
        b"\xff\xfe\n",
        b"3\n",
        b'["event", "at"]\n',
        b'{"level": "info"}\n',
        b'{"event": "stopped"}\n',
        b'{"event": ["stopped"], "at": 1.0}\n',
        b'{"event": "kind of a newer version", "at": 1.0}\n',
    ],
)
def test_a_foreign_line_and_an_unknown_kind_are_no_message(line: bytes) -> None:
    assert parse_message(line) is None


def test_a_field_of_a_newer_version_is_ignored_and_a_missing_one_is_an_error() -> None:
    assert parse_message('{"event": "resumed", "at": 1.0, "step": 3, "of": 20}') == Resumed(at=1.0, step=3)
    with pytest.raises(ValidationError):
        parse_message('{"event": "resumed", "at": 1.0}')


def test_a_row_of_metrics_holds_what_was_measured_and_nothing_else() -> None:
    assert list(StepRow.model_validate(STEP).columns().items()) == list(STEP.items())
    assert StepDone.model_validate({"at": 1.0, **VALIDATED, "eta_seconds": 0.0}).columns() == VALIDATED


def test_an_error_document_holds_the_whole_error() -> None:
    error = InputError("lora_rank_too_high", "lower it", "lora.r")
    document = ErrorDocument.model_validate_json(ErrorDocument.of(error).model_dump_json())
    assert vars(document.exception()) == vars(error)


def test_completed_is_told_from_the_result() -> None:
    result = TrainingResult.model_validate(
        {
            **COMPLETED,
            "model": "ft:b:o::1",
            "base": "b",
            "method": "supervised",
            "rank": 16,
            "total_steps": 20,
            "epochs": 2.0,
            "trained_tokens": 1000,
            "overfitting": {"verdict": "unknown", "reason": "there was no validation data"},
            "hyperparameters": {"batch_size": 4, "learning_rate": 0.01},
            "checkpoints": [{"step": 20, "prefix": "checkpoints/step-20/", "train_loss": 1.5}],
            "train_examples": 40,
            "valid_examples": 0,
            "dropped_examples": 0,
            "truncated_examples": 0,
        }
    )
    assert TrainingResult.model_validate_json(result.model_dump_json()) == result
    assert Completed.of(result, at=1.0).fields() == COMPLETED
