"""What is wrong with settings is said in the words of people who do not write Python."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shared.events import JobSpec
from shared.jobs.explain import explained


@pytest.mark.parametrize(
    ("settings", "field", "reason"),
    [
        ({"lora": {"r": 17}}, "lora.r", "must be 'auto' or 1, 8, 16, 32, 64, 128 or 256"),
        ({"hyperparameters": {"n_epochs": 99}}, "hyperparameters.n_epochs", "must be 'auto' or at most 50"),
        ({"hyperparameters": {"n_epochs": 1.5}}, "hyperparameters.n_epochs", "must be 'auto' or a whole number"),
        ({"splits": {"test": "ten"}}, "splits.test", "must be a number"),
        ({"suffix": 12}, "suffix", "must be text"),
        ({"suffix": "x" * 65}, "suffix", "must have at most 64 characters"),
        ({"budget": 5}, "budget", "must be fields with values, each `name: value`"),
        ({"integrations": "wandb"}, "integrations", "must be a list"),
        ({"validation_file": {"key": "k"}}, "validation_file.bucket", "is missing"),
        (
            {"hyperparameters": {"epochs": 3}},
            "hyperparameters.epochs",
            "there is no such setting; did you mean n_epochs?",
        ),
        (
            {"learning_rate": 1},
            "learning_rate",
            "it belongs into hyperparameters: `hyperparameters: {learning_rate: …}`",
        ),
        ({"lora": {"suffix": "x"}}, "lora.suffix", "it belongs to the outermost fields"),
        ({"gate": {"f1": 1}}, "gate.f1", "there is no such setting; there are metric, "),
        ({"lora": {"target_modules": ["q_proj", 5]}}, "lora.target_modules", "must be 'all-linear' or text"),
    ],
)
def test_the_field_and_what_it_may_be_are_named(settings: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(settings)
    (wrong,) = explained(caught.value, JobSpec)
    assert wrong.field.startswith(field) and reason in wrong.reason
