"""What the model card says of a run."""

from __future__ import annotations

import pytest

from services.trainer.engine.messages import TrainingResult
from services.trainer.engine.report.card import model_card
from shared.events import CheckpointInfo, Overfitting, Served


@pytest.mark.parametrize(
    ("served", "words"),
    [
        (Served(turns=1, differences=1, server="0.26.0"), "1 turn compared with vLLM 0.26.0: 1 difference"),
        (Served(not_asked="no render server is configured"), "not compared with the server: no render server is"),
        (None, "not compared with the server"),
    ],
)
def test_it_says_whether_what_was_trained_is_what_is_served(served: Served | None, words: str) -> None:
    assert f"| as served | {words}" in model_card(a_result(served=served))


def test_it_names_the_checkpoints_that_answer() -> None:
    assert "| checkpoints | none |" in model_card(a_result())
    listed = tuple(CheckpointInfo(step=step, prefix=f"checkpoints/step-{step}/") for step in (10, 20))
    card = model_card(a_result(checkpoints=listed))
    assert "steps 10, 20; that of step N answers as `ft:base:org::1:ckpt-step-N` |" in card


def a_result(*, served: Served | None = None, checkpoints: tuple[CheckpointInfo, ...] = ()) -> TrainingResult:
    return TrainingResult(
        model="ft:base:org::1",
        base="base",
        method="supervised",
        rank=8,
        steps=1,
        total_steps=1,
        epochs=1,
        trained_tokens=1,
        train_loss=1.0,
        valid_loss=None,
        saved_step=1,
        stopped_early=False,
        overfitting=Overfitting(verdict="healthy", reason="a test"),
        hyperparameters={},
        checkpoints=checkpoints,
        train_examples=1,
        valid_examples=0,
        dropped_examples=0,
        truncated_examples=0,
        seconds=1.0,
        served=served,
    )
