"""How fast a training is, and when it ends: estimated from what its steps, validations and checkpoints took."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate

from services.trainer.domain.schedule import CHECKPOINT_SECONDS
from services.trainer.domain.utilization import Cost

SMOOTHING_STEPS, SMOOTHING_SECONDS = 20, 30.0
"""The speed is a mean over about so many steps, or so many seconds if these are more steps."""
VALIDATION_SPEEDUP = 2.0
"""How much faster than a step a token is validated, until that is measured: there is no backward pass."""


class Pace:
    """The pace of this process's part of a training. The thread that trains measures; any thread may ask."""

    def __init__(
        self,
        total: int,
        validations: Mapping[int, float],
        checkpoints: Collection[int],
        *,
        clocked: bool = False,
        cost: Cost | None = None,
        recomputes: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`total`: all steps. `validations`: the tokens of each validation, by its step. `checkpoints`: the steps after
        which one is written; `clocked`: the clock asks for more. `cost`: None on a device whose peak is not known.
        `recomputes`: the share of the forward pass that is done again at the moment."""
        self.total = total
        self.step = 0
        self._clock, self._clocked = clock, clocked
        self._cost, self._recomputes = cost, recomputes
        self._validated_at = sorted(validations)
        self._validation_tokens = [0.0, *accumulate(validations[step] for step in self._validated_at)]
        self._validations_done = 0
        self._checkpoint_at = sorted(checkpoints)
        self._steps = 0
        self._step_seconds = self._step_tokens = 0.0
        self._seconds = {"validation": 0.0, "checkpoint": 0.0}
        self._amount = {"validation": 0.0, "checkpoint": 0.0}
        """What was measured so far: tokens of validations, number of checkpoints."""
        self._began, self._expected = clock(), 0.0
        """Since when the work under way goes on, and how long it should take."""

    # --- measuring ------------------------------------------------------------------------------------------------

    def begin_step(self) -> None:
        self._began, self._expected = self._clock(), self._step_seconds

    def end_step(self, step: int, tokens: int, seconds: float) -> None:
        """The step that began last is the one after which `step` are finished. `tokens`: without padding. `seconds`:
        that it took. The clock does not say that: the device may have begun the next step already."""
        self._steps += 1
        share = 1.0  # the first step also warms the process up, so it only counts until there is another
        if self._steps > 2:
            share = max(1 / (self._steps - 1), min(1 / SMOOTHING_STEPS, seconds / SMOOTHING_SECONDS))
        self._step_seconds += share * (seconds - self._step_seconds)
        self._step_tokens += share * (tokens - self._step_tokens)
        self.step = step
        self._validations_done = bisect_left(self._validated_at, step)
        self.begin_step()

    @contextmanager
    def validating(self, step: int) -> Iterator[None]:
        """The block is the validation after `step`."""
        before, after = bisect_left(self._validated_at, step), bisect_right(self._validated_at, step)
        tokens = self._validation_tokens[after] - self._validation_tokens[before]
        with self._measuring("validation", tokens, tokens * self._per_validation_token):
            yield
        self._validations_done = after

    @contextmanager
    def checkpointing(self) -> Iterator[None]:
        """The block is a checkpoint, as far as training waits for it."""
        with self._measuring("checkpoint", 1.0, self._per_checkpoint):
            yield

    @contextmanager
    def _measuring(self, kind: str, amount: float, expected: float) -> Iterator[None]:
        self._began, self._expected = began, _ = self._clock(), expected
        yield
        self._seconds[kind] += self._clock() - began
        self._amount[kind] += amount
        self.begin_step()

    # --- asking ---------------------------------------------------------------------------------------------------

    @property
    def step_seconds(self) -> float:
        """Of a step. 0: none is done."""
        return self._step_seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens without padding per second of steps. None: no step is done."""
        return self._step_tokens / self._step_seconds if self._step_seconds > 0 else None

    @property
    def mfu(self) -> float | None:
        """The share of the GPU's peak that the steps reach. None: the peak is not known, or no step is done."""
        speed = self.tokens_per_second
        return None if speed is None or self._cost is None else self._cost.mfu(speed, recompute=self._recomputes())

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last step, with the validations and checkpoints until then and after it, if training does
        not stop early. None: no step is done."""
        if not self._steps:
            return None
        working = (self.total - self.step) * self._step_seconds
        working += (self._validation_tokens[-1] - self._validation_tokens[self._validations_done]) * (
            self._per_validation_token
        )
        checkpoints = len(self._checkpoint_at) - bisect_right(self._checkpoint_at, self.step)
        by_the_clock = working / CHECKPOINT_SECONDS if self._clocked else 0.0
        left = working + self._per_checkpoint * max(checkpoints, by_the_clock)
        return max(0.0, left - min(self._clock() - self._began, self._expected))

    @property
    def _per_validation_token(self) -> float:
        if self._amount["validation"]:
            return self._seconds["validation"] / self._amount["validation"]
        speed = self.tokens_per_second
        return 1 / (speed * VALIDATION_SPEEDUP) if speed else 0.0

    @property
    def _per_checkpoint(self) -> float:
        count = self._amount["checkpoint"]
        return self._seconds["checkpoint"] / count if count else 0.0
