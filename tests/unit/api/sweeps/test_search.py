"""Draws: the same state gives the same one, and none comes twice."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.domain.sweeps.budget import Spent, left, share, unfinished, within
from services.api.domain.sweeps.documents import Sweep
from services.api.domain.sweeps.space import USUAL, Parameters, Range, SearchSpace, check_space, settings, usual_space
from services.api.domain.sweeps.standing import Point, Standing
from services.api.sweeps.curves import points_of
from services.api.sweeps.search import hopeless, propose
from shared.errors import InputError
from shared.events import Budget, JobSpec, TrainingUsage
from tests.support.data.jobs import NOWHERE


def sweep(space: SearchSpace = USUAL, **fields: Any) -> Sweep:
    usual = {"sweep_id": "sweep-a", "created_at": 0, "key_id": "k", "request": "r", "dataset": NOWHERE, "base": "b"}
    usual |= {"filename": "f", "organization": "o", "spec": {}, "trials": 8, "parallel": 1, "traceparent": ""}
    return Sweep.model_validate(usual | {"space": space.model_dump(exclude_none=True)} | fields)


def stands(number: int, parameters: Parameters, loss: float | None, **fields: Any) -> Standing:
    usual: dict[str, Any] = {"status": "succeeded", "training": False, "valid_loss": loss}
    about = {"number": number, "job_id": f"j{number}", "model": "m", "parameters": parameters}
    return Standing.model_validate(usual | about | fields)


def drawn(wanted: Sweep, count: int) -> list[Standing]:
    found: list[Standing] = []
    for number in range(count):
        found.append(stands(number, propose(wanted, found, number), float(number % 3)))
    return found


def test_the_same_state_gives_the_same_draws_and_another_seed_others() -> None:
    assert drawn(sweep(), 6) == drawn(sweep(), 6)
    assert drawn(sweep(seed=1), 6) != drawn(sweep(), 6)


def test_the_first_trial_has_the_settings_of_a_plain_job_as_far_as_the_space_has_them() -> None:
    plain = {"n_epochs": 3, "learning_rate_multiplier": 1.0, "r": 16, "dropout": 0.0, "batch_size": 8}
    assert propose(sweep(), [], 0) == propose(sweep(seed=1), [], 0) == plain
    narrow = SearchSpace(n_epochs=Range(low=5, high=9), r=(32, 64), learning_rate=Range(low=1e-5, high=1e-4, log=True))
    assert propose(sweep(narrow), [], 0) == {"n_epochs": 5, "r": 32, "learning_rate": 1e-4}


def test_a_small_space_is_tried_out_completely_and_nothing_in_it_twice() -> None:
    space = SearchSpace(n_epochs=Range(low=1, high=3), r=(8, 16))
    draws = [each.parameters for each in drawn(sweep(space, trials=6), 6)]
    assert {(each["n_epochs"], each["r"]) for each in draws} == {(n, r) for n in (1, 2, 3) for r in (8, 16)}


def test_draws_lie_in_the_space_and_make_settings_of_a_job() -> None:
    for each in drawn(sweep(trials=20), 20):
        spec = settings(JobSpec(suffix="x"), each.parameters)
        assert 0.2 <= float(spec.hyperparameters.learning_rate_multiplier) <= 5.0
        assert spec.lora.r in (8, 16, 32, 64) and spec.suffix == "x"
    check_space(USUAL, JobSpec(), 500, 64, tuned=False)


def test_ranks_that_are_not_served_are_not_drawn() -> None:
    assert usual_space(JobSpec(), 16, tuned=False).r == (8, 16)
    assert usual_space(JobSpec(), 1, tuned=False).r == (1,)
    with pytest.raises(InputError, match="16 is the highest rank that is served here"):
        check_space(SearchSpace(r=(8, 32)), JobSpec(), 2, 16, tuned=False)


def test_a_tuned_model_keeps_its_rank() -> None:
    space = usual_space(JobSpec(), 64, tuned=True)
    assert space.r is None and space.n_epochs is not None
    with pytest.raises(InputError, match=r"leave out 'space\.r'"):
        check_space(SearchSpace(r=(8, 16)), JobSpec(), 2, 64, tuned=True)


def test_trials_of_other_lengths_are_compared_by_the_share_that_is_done() -> None:
    parameters = propose(sweep(), [], 0)
    slow = tuple(Point(fraction=step / 40, valid_loss=3.0 - step / 40) for step in range(1, 41))
    others = [stands(0, parameters, 2.0, points=slow), stands(1, parameters, 2.0, points=slow)]
    running = {"status": "running", "training": True}
    better = stands(2, parameters, None, points=[{"fraction": 0.5, "valid_loss": 2.4}], **running)
    worse = stands(2, parameters, None, points=[{"fraction": 0.5, "valid_loss": 2.6}], **running)
    early = stands(2, parameters, None, points=[{"fraction": 0.1, "valid_loss": 9.0}], **running)
    assert hopeless(sweep(), others, better) is None
    assert hopeless(sweep(), others, early) is None
    assert "after 50% of its training was 2.6000" in (hopeless(sweep(), others, worse) or "")
    assert hopeless(sweep(), others[:1], worse) is None
    assert hopeless(sweep(pruning="off"), others, worse) is None


def test_rows_that_are_no_validation_are_passed_over_and_a_step_done_again_counts_last() -> None:
    rows = [
        '{"step": 1, "total_steps": 4, "train_loss": 2.0}',
        '{"step": 2, "total_steps": 4, "valid_loss": 1.5}',
        "not JSON",
        "[1]",
        '{"step": 2, "total_steps": 4, "valid_loss": 1.25}',
        '{"step": 4, "total_steps": 4, "valid_loss": 1.0}',
    ]
    assert points_of(rows) == (Point(fraction=0.5, valid_loss=1.25), Point(fraction=1.0, valid_loss=1.0))


def test_what_a_pruned_training_took_is_priced_as_the_others_were_and_never_above_its_share() -> None:
    usage = TrainingUsage(device="H100", processes=2, seconds=100, tokens=10, money=20.0)
    took = unfinished(50.0, 7.0, [usage])
    assert took == Spent(seconds=50, gpu_hours=100 / 3600, tokens=7, money=10.0)
    assert within(took, Budget(seconds=40)).seconds == 40
    assert within(unfinished(50.0, 7.0, []), Budget(money=3.0)).money == 3.0


def test_what_is_left_counts_running_trials_at_their_whole_shares() -> None:
    budget = Budget(tokens=100, seconds=10.0)
    rest = left(budget, [Spent(tokens=30, seconds=1)], [Budget(tokens=50, seconds=4)])
    assert rest == Budget(tokens=20, seconds=5.0)
    assert share(rest, 2, Budget(seconds=1.0)) == Budget(tokens=10, seconds=1.0)
    assert left(budget, [Spent(tokens=100)], []) is None
    assert share(Budget(tokens=3), 4, None) is None
