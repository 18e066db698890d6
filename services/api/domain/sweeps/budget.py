"""The budget of a sweep: what its trials have spent, what is left, and the share that the next one gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared.events import Budget, FrozenModel, TrainingUsage

SMALLEST = 1e-6
"""A share below this is nothing: the fields of a budget are above 0."""


class Spent(FrozenModel):
    """What one training has taken. `money` is None where nobody knows what the machine costs."""

    seconds: float = 0.0
    gpu_hours: float = 0.0
    tokens: float = 0.0
    money: float | None = None

    @classmethod
    def of(cls, usage: TrainingUsage) -> Spent:
        hours = usage.seconds / 3600 * usage.processes
        return cls(seconds=usage.seconds, gpu_hours=hours, tokens=usage.tokens, money=usage.money)


def unfinished(seconds: float, tokens: float, usages: Sequence[TrainingUsage]) -> Spent:
    """What a training has taken that left no figures, because it was cancelled or has failed. `usages`: of trainings
    that did, which tell how many devices there are, and what they cost."""
    processes = max((usage.processes for usage in usages), default=1)
    hours = seconds / 3600 * processes
    prices = [usage.money / (usage.seconds * usage.processes) for usage in usages if usage.money and usage.seconds]
    money = max(prices) * seconds * processes if prices else None
    return Spent(seconds=seconds, gpu_hours=hours, tokens=tokens, money=money)


def within(spent: Spent, share: Budget | None) -> Spent:
    """`spent`, but no more than the share, beyond which no training goes. Money that nobody can tell is the whole
    share."""
    if share is None:
        return spent
    most = {name: amount for name, amount in share.model_dump().items() if amount is not None}
    values = spent.model_dump()
    known = {name: value if value is not None else most.get(name) for name, value in values.items()}
    return Spent.model_validate(
        {name: min(value, most.get(name, value)) if value is not None else None for name, value in known.items()}
    )


def left(budget: Budget, ended: Iterable[Spent], running: Iterable[Budget | None]) -> Budget | None:
    """What is left when every running trial spends all of its share; None: nothing."""
    ended, running = list(ended), list(running)
    rest: dict[str, float] = {}
    for name, amount in budget.model_dump(exclude_none=True).items():
        gone = sum(getattr(each, name) or 0.0 for each in ended)
        gone += sum(getattr(each, name) or 0.0 for each in running if each is not None)
        rest[name] = amount - gone
    if any(amount < (1 if name == "tokens" else SMALLEST) for name, amount in rest.items()):
        return None
    return _budget(rest)


def share(rest: Budget, slots: int, own: Budget | None) -> Budget | None:
    """What the next trial may spend, if as many as `slots` begin now. `own`: what any one job may spend, as its
    settings say. None: the share is too small."""
    amounts = {name: amount / slots for name, amount in rest.model_dump(exclude_none=True).items()}
    for name, amount in (own.model_dump(exclude_none=True) if own else {}).items():
        amounts[name] = min(amount, amounts.get(name, amount))
    if amounts.get("tokens", 1) < 1 or any(amount < SMALLEST for amount in amounts.values()):
        return None
    return _budget(amounts)


def _budget(amounts: dict[str, float]) -> Budget:
    whole = {"tokens": int(amounts["tokens"])} if "tokens" in amounts else {}
    return Budget.model_validate(amounts | whole)
