"""What a job has spent of its budget, over all attempts at its training."""

from __future__ import annotations

from dataclasses import dataclass

from services.trainer.domain.budget import Limits
from services.trainer.engine.messages import Estimated
from services.trainer.engine.state import State
from shared.errors import InputError


@dataclass(frozen=True)
class Spending:
    """`prepared_seconds`: what this process took before its first step, which belongs to what the job spends."""

    limits: Limits
    prepared_seconds: float

    def check(self, state: State, total: int, estimated: Estimated, tokens: int) -> None:
        """Before the first step of a job. `total`: all steps; `tokens`: of all of them.

        Raises:
            InputError: `unknown_price` or `budget_too_small`.
        """
        if state.step != state.job_began[0]:  # an earlier attempt has asked
            return
        left = 1 - state.step / total
        needed = None if estimated.seconds is None else self.prepared_seconds + estimated.seconds * left
        self.limits.check(needed, round(tokens * left))

    def over(self, state: State, total: int) -> InputError | None:
        """The error that ends the training after a step; None: there is something left."""
        begun, seconds, tokens = state.job_began
        if state.step == begun:
            return None
        used = self.prepared_seconds + state.seconds - seconds
        return self.limits.spent(used, state.tokens - tokens, state.step, total)
