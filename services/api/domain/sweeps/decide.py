"""What a sweep does next: how many trials begin, whether the search is over, which trial is the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from services.api.domain.sweeps.budget import left, share
from services.api.domain.sweeps.documents import Failure, Sweep, Trial
from services.api.domain.sweeps.standing import Standing
from shared.events import Budget, JobFailed

GIVE_UP = 3
"""So many trials that fail alike, and none that did not, mean that the next one would fail, too. So many that are too
large for what is left of the budget mean that it is spent."""
TOO_SMALL = "budget_too_small"
"""How the trainer refuses a training."""


def slots(sweep: Sweep, standings: Sequence[Standing]) -> int:
    """How many trials may begin now, by number alone. A trial makes room when its training is over."""
    if is_hopeless(standings):
        return 0
    free = sweep.parallel - sum(standing.training for standing in standings)
    return max(0, min(free, sweep.trials - len(standings)))


def is_hopeless(standings: Sequence[Standing]) -> bool:
    """Whether trials have failed so often and so alike that no other one is tried."""
    codes = Counter(standing.code for standing in standings if standing.status == "failed")
    if codes[TOO_SMALL] >= GIVE_UP:
        return True
    others = any(standing.status in ("succeeded", "pruned") for standing in standings)
    return not others and any(count >= GIVE_UP for count in codes.values())


def next_share(sweep: Sweep, trials: Mapping[int, Trial], standings: Sequence[Standing], free: int) -> Budget | None:
    """The budget of the next trial, where `free` may begin. None: nothing is left. Only for a sweep with a budget."""
    assert sweep.budget is not None, "a sweep without a budget has no shares"
    running = [trials[each.number].job.spec.budget for each in standings if each.training]
    rest = left(sweep.budget, (each.spent for each in standings if not each.training), running)
    return None if rest is None else share(rest, free, sweep.spec.budget)


def best_of(standings: Sequence[Standing], deleted: frozenset[str] = frozenset()) -> Standing | None:
    """The trial with the lowest validation loss; of equals the first. None: no model was trained. `deleted`: jobs whose
    models are gone."""
    trained = [
        (standing.valid_loss, standing.number, standing)
        for standing in standings
        if standing.status == "succeeded" and standing.valid_loss is not None and standing.job_id not in deleted
    ]
    return min(trained, key=lambda each: each[:2])[2] if trained else None


def failure(standings: Sequence[Standing]) -> Failure:
    """Why a sweep has no best trial, in the words of the first trial that failed."""
    failed = [standing for standing in standings if standing.status == "failed"]
    if failed:
        first = failed[0]
        message = f"No trial has a model. Trial {first.number} failed: {first.reason}"
        return Failure(code=first.code or "trial_failed", message=message)
    if any(standing.status == "succeeded" for standing in standings):
        message = (
            "No trial has a model with a validation loss, so none is the best: give a validation file, or a share of "
            "the rows in spec.splits.validation; and keep the models of the trials."
        )
        return Failure(code="no_validation_loss", message=message)
    if standings:
        return Failure(code="no_trial_left", message="Every trial was cancelled, so there is no model.")
    message = (
        "The budget is too small for one trial: raise it, or leave it out; `tunestream estimate` says what one takes."
    )
    return Failure(code="budget_too_small", message=message, param="budget")


def evaluation_failed(job_id: str, said: JobFailed | None) -> Failure:
    """Why a sweep failed whose best trial could not be evaluated. `said`: what the job said of it."""
    code, reason = (said.code, said.message) if said else ("unreadable", "What it said of that cannot be read.")
    message = (
        f"The evaluation of the best trial, {job_id}, failed: {reason} `tunestream retry {job_id}` tries it again; the "
        "models of all trials can be called."
    )
    return Failure(code=code, message=message, param=said.param if said else None)
