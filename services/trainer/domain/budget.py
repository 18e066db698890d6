"""The budget of a job: whether a training may begin, and when it has to end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shared.errors import InputError
from shared.events import Budget

PRICE = "TUNESTREAM_TRAINER__PRICE_PER_GPU_HOUR"


@dataclass(frozen=True)
class Limits:
    """What a job may spend. `price`: of an hour on one device, None if it is not set; `processes`: how many devices."""

    budget: Budget
    price: float | None = None
    processes: int = 1

    def check(self, seconds: float | None, tokens: int) -> None:
        """Before the first step. `seconds`, `tokens`: what the job is estimated to take in all; None: not known.

        Raises:
            InputError: `unknown_price`: there is a budget of money, but no price. `budget_too_small`: it will not do.
        """
        if self.budget.money is not None and self.price is None:
            raise InputError(
                "unknown_price",
                f"budget.money is set, but not what an hour of this machine costs: set {PRICE}, or use "
                "budget.gpu_hours",
                "budget.money",
            )
        for name, allowed, needed in self._amounts(seconds, tokens):
            if needed > allowed:
                raise InputError(
                    "budget_too_small",
                    f"the training is estimated to take {_words(name, needed)}, and {name} allows "
                    f"{_words(name, allowed)}: raise it, or train on fewer rows, with a lower hyperparameters.n_epochs "
                    "or a smaller base; `tunestream estimate` says what they take. No step was taken",
                    name,
                )

    def spent(self, seconds: float, tokens: int, step: int, total: int) -> InputError | None:
        """The error to end with after `step`, when so much is spent; None: the training goes on."""
        for name, allowed, used in self._amounts(seconds, tokens):
            if used >= allowed:
                return InputError(
                    "budget_spent",
                    f"{_words(name, used)} are spent after step {step} of {total}, and {name} allows "
                    f"{_words(name, allowed)}: training has ended, and the checkpoint of this step is kept. "
                    "`tunestream retry JOB` goes on from there, and may spend as much again",
                    name,
                )
        return None

    def _amounts(self, seconds: float | None, tokens: int) -> Iterator[tuple[str, float, float]]:
        """The name of each limit, what it allows, and how much that is."""
        budget = self.budget
        if budget.tokens is not None:
            yield "budget.tokens", budget.tokens, tokens
        if seconds is None:
            return
        hours = seconds / 3600 * self.processes
        if budget.seconds is not None:
            yield "budget.seconds", budget.seconds, seconds
        if budget.gpu_hours is not None:
            yield "budget.gpu_hours", budget.gpu_hours, hours
        if budget.money is not None and self.price is not None:
            yield "budget.money", budget.money, hours * self.price


def _words(name: str, amount: float) -> str:
    if name == "budget.tokens":
        return f"{round(amount):,} tokens"
    if name == "budget.seconds":
        return f"{amount:,.0f} s" if amount >= 10 else f"{amount:.2g} s"
    unit = "GPU hours" if name == "budget.gpu_hours" else "of money"
    return f"{amount:.3g} {unit}"
