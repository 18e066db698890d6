"""A training that over- or underfitted gets the usual remedies, with the numbers of its run."""

from __future__ import annotations

from typing import Any

from services.evaluator.domain.remedies import remedies
from shared.events import Split, TrainingCompleted
from tests.support.data.jobs import NOWHERE, make_training


def training(verdict: str, **more: Any) -> TrainingCompleted:
    usual: dict[str, Any] = {
        "overfitting": {"verdict": verdict, "reason": "r", "best_step": 40},
        "steps": 120,
        "epochs": 6,
        "rank": 32,
        "train": Split(reference=NOWHERE, examples=160, tokens=1),
        "hyperparameters": {"learning_rate": 2e-4, "lora_dropout": 0.0, "weight_decay": 0.0, "n_epochs": 6},
    }
    return make_training(**usual | more)


def test_overfitting_names_each_remedy_with_what_was_and_what_to_set() -> None:
    said = " ".join(remedies(training("overfitting")))
    assert "best at step 40 of 120, which is epoch 2 of 6; set hyperparameters.n_epochs to 2" in said
    assert "it was 0.0002; try 0.0001" in said
    assert "there were 160 to train on" in said and "each was seen 6 times" in said
    assert "dropout was 0; set lora.dropout to 0.1" in said
    assert "Weight decay was 0; set hyperparameters.weight_decay to 0.01" in said
    assert "its rank was 32; try lora.r = 16" in said
    assert "ckpt" not in said


def test_a_checkpoint_of_the_best_step_is_offered_if_there_is_one() -> None:
    said = remedies(training("overfitting", checkpoints=[{"step": 40, "prefix": "p"}]))[0]
    assert "use the checkpoint of that step, ft:base:org::1:ckpt-step-40" in said


def test_what_is_set_already_is_not_advised() -> None:
    used = {"lora_dropout": 0.2, "weight_decay": 0.1, "early_stopping_patience": 0}
    said = " ".join(remedies(training("overfitting", hyperparameters=used, rank=8, train=None)))
    assert "dropout" not in said and "Weight decay" not in said and "rank" not in said and "More rows" not in said
    assert "Early stopping was off" in said


def test_underfitting_is_told_to_go_on_and_a_healthy_run_nothing() -> None:
    said = " ".join(remedies(training("underfitting")))
    assert "set hyperparameters.n_epochs to 12" in said and "try 0.0004" in said and "lora.r = 64" in said
    assert remedies(training("healthy")) == remedies(training("unknown")) == ()
