"""Promises of money and tokens: a request is sent only if the budget has room for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.ingest.domain.synthesis.budget import Cost, Left, total
from services.ingest.domain.synthesis.history import History
from services.ingest.domain.synthesis.spec import Budget


class BudgetReached(Exception):
    """What is left of the budget is not enough."""


class Purse:
    """What is spent, plus what is promised, is never more than the budget.

    A request that is under way is in the history, at the most that it may cost; `_held` is what the attempts under way
    are expected to ask for after that, so that no query is paid for without the means for its answer.
    """

    def __init__(self, budget: Budget, history: History) -> None:
        self._budget = budget
        self._history = history
        self._held: dict[object, Cost] = {}
        self._waiting: set[object] = set()
        self._moved = asyncio.Condition()

    @asynccontextmanager
    async def holding(self, who: object, cost: Cost) -> AsyncIterator[None]:
        """Hold `cost` for an attempt as long as the block lasts.

        Raises:
            BudgetReached: there is not so much left, and the other attempts under way will not leave it either.
        """
        await self._hold(who, cost)
        try:
            yield
        finally:
            del self._held[who]
            await self.moved()

    async def ensure(self, who: object, cost: Cost) -> None:
        """Hold at least `cost` for an attempt, see `holding`."""
        held = self._held[who]
        more = Cost(
            input=max(0, cost.input - held.input),
            output=max(0, cost.output - held.output),
            money=max(0.0, cost.money - held.money),
        )
        if more != Cost():
            await self._hold(who, more)

    async def _hold(self, who: object, cost: Cost) -> None:
        async with self._moved:
            while not self._has(cost):
                if not self._held.keys() - self._waiting - {who}:
                    raise BudgetReached
                self._waiting.add(who)
                self._moved.notify_all()  # whoever waits may be the last one now
                try:
                    await self._moved.wait()
                finally:
                    self._waiting.discard(who)
            self._held[who] = self._held.get(who, Cost()) + cost

    def asking(self, who: object, rest: Cost) -> None:
        """The attempt asks its next request, which is in the history now. `rest`: the most that may come after it."""
        self._held[who] = rest

    def unspent(self, who: object, cost: Cost) -> None:
        """A request of the attempt turned out to cost nothing, so its `cost` is held again."""
        self._held[who] += cost

    async def moved(self) -> None:
        """Those who wait look again: a request took less than it might have, or an attempt has ended."""
        async with self._moved:
            self._moved.notify_all()

    def _has(self, cost: Cost) -> bool:
        return Left(self._budget, self._history.used + total(self._held.values())).has(cost)
