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

    def refused(self, state: State, total: int, estimated: Estimated, tokens: int) -> InputError | None:
        """The error of a job that may not begin; None: it may. `total`: all steps; `tokens`: of all of them."""
        if state.step != state.job_began[0]:  # an earlier attempt has begun it
            return self.over(state, total)
        left = 1 - state.step / total
        needed = None if estimated.seconds is None else self.prepared_seconds + estimated.seconds * left
        try:
            self.limits.check(needed, round(tokens * left))
        except InputError as error:
            return error
        return None

    def over(self, state: State, total: int) -> InputError | None:
        """The error that ends the training after a step; None: there is something left."""
        _, seconds, tokens = state.job_began
        used = self.prepared_seconds + state.seconds - seconds
        return self.limits.spent(used, state.tokens - tokens, state.step, total)
