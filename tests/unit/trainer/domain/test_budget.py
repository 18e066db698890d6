"""A budget is refused before the first step or ends the training, with both numbers and how to go on."""

from __future__ import annotations

from typing import Any

import pytest

from services.trainer.domain.budget import Limits
from shared.errors import InputError
from shared.events import Budget, JobSpec


def limits(price: float | None = None, processes: int = 1, **budget: Any) -> Limits:
    return Limits(Budget(**budget), price, processes)


@pytest.mark.parametrize(
    ("found", "param", "words"),
    [
        (limits(seconds=59), "budget.seconds", ("60 s", "59 s")),
        (limits(tokens=999), "budget.tokens", ("1,000 tokens", "999 tokens")),
        (limits(gpu_hours=0.03, processes=2), "budget.gpu_hours", ("0.0333 GPU hours", "0.03 GPU hours")),
        (limits(money=0.04, price=3.0), "budget.money", ("0.05 of money", "0.04 of money")),
        (limits(money=5), "budget.money", ("TUNESTREAM_TRAINER__PRICE_PER_GPU_HOUR",)),
    ],
)
def test_an_estimate_above_the_budget_is_refused(found: Limits, param: str, words: tuple[str, ...]):
    with pytest.raises(InputError) as error:
        found.check(60.0, 1000)
    assert error.value.param == param
    assert all(each in error.value.message for each in words)


@pytest.mark.parametrize(
    "found", [limits(), limits(seconds=60), limits(tokens=1000), limits(gpu_hours=0.017), limits(money=0.06, price=3.0)]
)
def test_an_estimate_within_the_budget_is_not(found: Limits):
    found.check(60.0, 1000)


def test_a_time_that_is_not_known_is_not_compared_but_tokens_are():
    limits(seconds=1).check(None, 5)
    with pytest.raises(InputError, match="tokens"):
        limits(seconds=1, tokens=4).check(None, 5)


def test_the_training_ends_when_as_much_is_spent():
    found = limits(seconds=60)
    assert found.spent(59.9, 10, 3, 9) is None
    error = found.spent(61.0, 10, 4, 9)
    assert error is not None and (error.code, error.param) == ("budget_spent", "budget.seconds")
    assert all(words in error.message for words in ("61 s", "60 s", "step 4 of 9", "tunestream retry"))


def test_a_job_without_a_budget_is_written_as_before():
    assert "budget" not in JobSpec().model_dump(mode="json")
    assert JobSpec.model_validate({"budget": {"tokens": 5}}).model_dump(mode="json")["budget"]["tokens"] == 5
    for wrong in ({"tokens": 0}, {"seconds": -1}, {"euros": 5}):
        with pytest.raises(ValueError):
            JobSpec.model_validate({"budget": wrong})
