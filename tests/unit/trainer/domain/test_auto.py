"""The hyperparameters that are chosen automatically, and what is said of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.domain.auto import (
    Choice,
    Chosen,
    Facts,
    base_learning_rate,
    choose,
    choose_max_length,
    choose_processes,
)
from services.trainer.domain.plan import Plan
from services.trainer.domain.schedule import Steps
from shared.errors import ConfigError

PLAN = {"job_id": "j", "model": "m", "base": {"id": "b", "location": "b"}, "train": "t.jsonl"}


def facts(
    examples: int = 360,
    parameters: int = 5_500_000,
    trained_tokens: int = 10_000,
    parameters_per_rank: int = 20_000,
    validation_examples: int = 45,
) -> Facts:
    return Facts(
        examples=examples,
        trained_tokens=trained_tokens,
        parameters=parameters,
        parameters_per_rank=parameters_per_rank,
        validation_examples=validation_examples,
    )


def plan(**changes: object) -> Plan:
    return Plan.model_validate({**PLAN, **changes})


def chosen(plan: Plan, facts: Facts) -> Chosen:
    return choose(plan, facts, Choice(128, "test"))


def test_the_demo_gets_the_hyperparameters_that_were_measured_to_work():
    got = chosen(plan(), facts())
    assert (got.n_epochs.value, got.batch_size.value, got.lora_r.value) == (3, 8, 16)
    assert (got.lora_alpha.value, got.warmup_ratio.value) == (32, 0.05)
    assert got.learning_rate.value == pytest.approx(5e-3, rel=0.05)
    assert Steps(360, got.batch_size.value, got.n_epochs.value).total == 135


def test_every_value_has_a_reason():
    document = chosen(plan(method="dpo"), facts()).document()
    assert {"n_epochs", "batch_size", "learning_rate", "lora_r", "lora_alpha", "max_length", "beta"} <= set(document)
    assert all(entry["reason"] for entry in document.values())


def test_what_the_user_set_is_kept():
    asked = {"n_epochs": 7, "batch_size": 3, "learning_rate": 0.5}
    got = chosen(plan(hyperparameters=asked, lora={"r": 8, "alpha": 8}), facts())
    assert (got.n_epochs.value, got.batch_size.value, got.learning_rate.value) == (7, 3, 0.5)
    assert (got.lora_r.value, got.lora_alpha.value) == (8, 8)


def test_the_multiplier_multiplies_the_automatic_rate():
    automatic = chosen(plan(), facts()).learning_rate.value
    doubled = chosen(plan(hyperparameters={"learning_rate_multiplier": 2.0}), facts()).learning_rate.value
    assert doubled == pytest.approx(2 * automatic)


def test_the_rate_falls_with_the_base():
    rates = [base_learning_rate(size) for size in (10**5, 10**6, 5_500_000, 5 * 10**8, 8 * 10**9, 70 * 10**9)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    ("examples", "epochs", "batch", "why_epochs"),
    [
        (10, 10, 4, "10 examples are few"),
        (50, 5, 4, "50 examples are few"),
        (500, 3, 8, "usual number of passes over 500 examples"),
        (5_000, 3, 16, "usual number of passes over 5000 examples"),
        (25_000, 2, 32, "two passes, because 25000 examples are more than 5000"),
        (50_000, 1, 32, "one pass, because 50000 examples are more than 25000"),
    ],
)
@pytest.mark.parametrize("parameters", [5_500_000, 135_000_000, 500_000_000, 8 * 10**9, 70 * 10**9])
def test_passes_and_batch_follow_the_number_of_examples(
    examples: int, epochs: int, batch: int, why_epochs: str, parameters: int
):
    got = chosen(plan(), facts(examples=examples, parameters=parameters))
    assert (got.n_epochs.value, got.batch_size.value) == (epochs, batch)
    assert why_epochs in got.n_epochs.reason
    assert f"{examples} examples" in got.batch_size.reason


@pytest.mark.parametrize(
    ("parameters", "named", "rate", "alpha"),
    [
        (5_500_000, "5.5 M", 5e-3, 32),
        (135_000_000, "135 M", 1e-3, 32),
        (500_000_000, "500 M", 5.2e-4, 32),
        (8 * 10**9, "8 G", 2.5e-4, 32),
        (70 * 10**9, "70 G", 1e-4, 32),
    ],
)
@pytest.mark.parametrize("examples", [50, 500, 5_000, 25_000, 50_000])
def test_the_rate_follows_the_size_of_the_base_and_the_length_of_the_run(
    parameters: int, named: str, rate: float, alpha: int, examples: int
):
    got = chosen(plan(), facts(examples=examples, parameters=parameters))
    steps = Steps(examples, got.batch_size.value, got.n_epochs.value).total
    short = steps < 150 and parameters > 10**8
    assert got.learning_rate.value == pytest.approx(rate * (1.5 if short else 1))
    assert f"a base of {named} parameters" in got.learning_rate.reason
    assert (f"1.5 times as much as usual, because {steps} steps" in got.learning_rate.reason) == short
    assert got.lora_alpha.value == alpha


@pytest.mark.parametrize(
    ("per_rank", "tokens", "rank", "why"),
    [
        (2_600_000, 40_000_000, 16, "41.6 M parameters, room enough for 40 M trained tokens"),  # 8 G
        (2_600_000, 50_000_000, 32, "83.2 M parameters, room enough for 50 M trained tokens"),
        (550_000, 30_000_000, 64, "35.2 M parameters, room enough for 30 M trained tokens"),  # 0.5 G
        (550_000, 10**9, 64, "the largest automatic rank: 35.2 M parameters for 1 G trained tokens"),
    ],
)
def test_the_adapter_has_as_many_parameters_as_there_are_trained_tokens(
    per_rank: int, tokens: int, rank: int, why: str
):
    got = chosen(plan(), facts(parameters=8 * 10**9, parameters_per_rank=per_rank, trained_tokens=tokens))
    assert (got.lora_r.value, got.lora_r.reason) == (rank, why)
    assert got.lora_alpha.value == 32


@pytest.mark.parametrize(
    ("examples", "ratio", "why"),
    [
        (360, 0.05, "5% of 135 steps"),
        (50, 5 / 65, "5 of 65 steps, because 5% would be fewer"),
        (1, 5 / 10, "5 of 10 steps"),
    ],
)
def test_warm_up_is_five_steps_or_five_percent(examples: int, ratio: float, why: str):
    got = chosen(plan(), facts(examples=examples)).warmup_ratio
    assert got.value == pytest.approx(ratio)
    assert why in got.reason
    assert chosen(plan(hyperparameters={"warmup_ratio": 0.2}), facts(examples=examples)).warmup_ratio.value == 0.2


@pytest.mark.parametrize(
    ("examples", "parameters", "epochs", "batch", "rate"),
    [
        (50, 8 * 10**9, 2, 16, 5e-6),
        (499, 135_000_000, 2, 16, 5e-6),
        (500, 135_000_000, 1, 16, 5e-6),
        (50_000, 70 * 10**9, 1, 32, 5e-6),
        (500, 5_500_000, 1, 16, 5e-4),
        (7, 8 * 10**9, 2, 7, 5e-6),
    ],
)
def test_preference_pairs_are_learnt_gently(examples: int, parameters: int, epochs: int, batch: int, rate: float):
    got = chosen(plan(method="dpo", format="preference"), facts(examples=examples, parameters=parameters))
    assert (got.n_epochs.value, got.batch_size.value) == (epochs, batch)
    assert got.learning_rate.value == pytest.approx(rate)
    assert "preference pairs" in got.learning_rate.reason
    assert got.beta is not None
    assert (got.warmup_ratio.value, got.beta.value, got.lora_dropout.value) == (0.1, 0.1, 0.0)
    assert str(examples) in got.n_epochs.reason
    assert str(examples) in got.batch_size.reason


def test_early_stopping_needs_enough_validation_rows():
    assert chosen(plan(), facts(validation_examples=0)).early_stopping_patience.value == 0
    few = chosen(plan(), facts(validation_examples=29)).early_stopping_patience
    assert few.value == 0
    assert "29 validation rows are fewer than 30" in few.reason
    enough = chosen(plan(), facts(validation_examples=30)).early_stopping_patience
    assert enough.value == 3
    assert "30 validation rows" in enough.reason
    asked = plan(hyperparameters={"early_stopping_patience": 1})
    assert chosen(asked, facts(validation_examples=5)).early_stopping_patience.value == 1


def test_the_adapter_that_a_run_starts_from_decides_rank_and_alpha():
    started = dataclasses.replace(facts(parameters=8 * 10**9), start_rank=8, start_alpha=24)
    got = chosen(plan(), started)
    assert (got.lora_r.value, got.lora_alpha.value) == (8, 24)
    assert "starts from" in got.lora_r.reason


@pytest.mark.parametrize(
    ("asked", "start", "rslora", "alpha"),
    [
        ({}, None, False, 32),
        ({"use_rslora": False}, None, False, 32),
        ({"use_rslora": True}, None, True, 8),  # 8 / sqrt(16) is 32 / 16
        ({"use_rslora": True, "alpha": 16}, None, True, 16),
        ({}, (24, True), True, 24),
        ({}, (24, False), False, 24),
    ],
)
def test_rank_stabilized_lora_has_an_alpha_of_its_own(
    asked: dict[str, Any], start: tuple[int, bool] | None, rslora: bool, alpha: int
):
    known = facts(parameters=8 * 10**9)
    if start is not None:
        known = dataclasses.replace(known, start_rank=16, start_alpha=start[0], start_rslora=start[1])
    got = chosen(plan(lora=asked), known)
    assert (got.use_rslora.value, got.lora_alpha.value) == (rslora, alpha)
    said = got.document()["use_rslora"]
    assert isinstance(said, dict) and said["reason"]
    assert got.values().get("use_rslora", False) is rslora
    assert ("use_rslora" in got.values()) is rslora  # checkpoints of earlier versions do not name it


def test_the_base_stays_quantized_by_default():
    assert chosen(plan(), facts(parameters=70 * 10**9)).quantization.value == "nf4"


def test_the_automatic_rank_can_be_served():
    got = chosen(plan(max_lora_rank=8), facts(trained_tokens=10**9))
    assert got.lora_r.value == 8
    assert "limited" in got.lora_r.reason


@given(st.integers(1, 10**6))
def test_any_dataset_gets_a_run_of_sane_length(examples: int):
    got = chosen(plan(), facts(examples=examples))
    assert 1 <= got.batch_size.value <= min(32, examples)
    assert 1 <= got.n_epochs.value <= 10


def test_max_length_is_never_beyond_the_context():
    assert choose_max_length(plan(max_length=4096), 1024, 50).value == 1024
    assert choose_max_length(plan(), 1024, 5000).value == 1024
    assert choose_max_length(plan(), 1024, 50).value == 50
    assert choose_max_length(plan(max_length=64), 1024, 50).value == 64


@pytest.mark.parametrize(
    ("asked", "rows", "visible", "processes", "why"),
    [
        (1, 8, 4, 1, "as set"),
        (3, 2, 4, 3, "as set"),
        (2, 8, None, 2, "as set"),  # of a plan that was made by hand, to try it on a CPU
        ("auto", 8, 4, 4, "all that are visible"),
        ("auto", 2, 4, 2, "a batch has no more rows"),
        ("auto", 8, None, 1, "no GPU"),
    ],
)
def test_a_training_uses_the_gpus_that_it_was_given(
    asked: int | str, rows: int, visible: int | None, processes: int, why: str
):
    chosen = choose_processes(asked, rows, visible)
    assert chosen.value == processes
    assert why in chosen.reason


def test_gpus_that_are_not_there_are_told_to_the_operator():
    with pytest.raises(ConfigError, match=r"TRAINER__GPUS is 8, but the training sees 2.*'auto'.*TRAINER__GPU"):
        choose_processes(8, 16, 2)
