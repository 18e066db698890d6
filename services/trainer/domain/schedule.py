"""When things happen in a run: learning rate, validations, checkpoints, early stopping. Pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

VALIDATIONS_PER_RUN = 10
QUICK_ROWS = 256  # size of the sample that is measured within an epoch; at the end of an epoch all rows are measured
MOST_LISTED = 10  # each stays in the store as long as its job
CHECKPOINT_SECONDS = 30.0
CHECKPOINT_SHARE = 0.05  # the largest share of the time that training may stop for checkpoints


@dataclass(frozen=True)
class Steps:
    """The shape of a run: `examples` rows in batches of `batch_size`, `epochs` times. The last batch may be smaller."""

    examples: int
    batch_size: int
    epochs: int

    @property
    def per_epoch(self) -> int:
        return math.ceil(self.examples / self.batch_size)

    @property
    def total(self) -> int:
        return self.per_epoch * self.epochs

    def position(self, step: int) -> tuple[int, int]:
        """(epoch, first index into that epoch's order) of the batch of `step`, which counts from 0."""
        epoch, batch = divmod(step, self.per_epoch)
        return epoch, batch * self.batch_size

    def ends_epoch(self, step: int) -> bool:
        """Whether `step` finished steps are a whole number of epochs."""
        return step > 0 and step % self.per_epoch == 0

    def epochs_done(self, step: int) -> float:
        """How many epochs `step` finished steps are, in fractions."""
        return step / self.per_epoch


def learning_rate(step: int, total: int, peak: float, warmup_ratio: float) -> float:
    """Linear warm-up to `peak`, then a cosine towards zero. `step` counts from 0; no step has a rate of zero."""
    warmup = max(1, round(total * warmup_ratio))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def validation_steps(steps: Steps, every: int | Literal["auto"]) -> frozenset[int]:
    """The steps after which validation runs, as numbers of finished steps: every `every` steps, and at the end of each
    epoch."""
    interval = math.ceil(steps.total / VALIDATIONS_PER_RUN) if every == "auto" else every
    ends = range(steps.per_epoch, steps.total + 1, steps.per_epoch)
    due = set(range(interval, steps.total + 1, interval))
    if every == "auto":
        # A validation just before an epoch's end would measure the same model twice.
        due = {step for step in due if all(abs(step - end) > interval // 2 for end in ends)}
    return frozenset(due | set(ends))


def listed_steps(steps: Steps) -> frozenset[int]:
    """The steps whose adapter is listed as a checkpoint, as numbers of finished steps: the ends of all epochs; of many
    epochs, of some that are evenly spread, the last among them."""
    marks = min(steps.epochs, MOST_LISTED)
    return frozenset(steps.per_epoch * round(steps.epochs * mark / marks) for mark in range(1, marks + 1))


def checkpoint_steps(steps: Steps, every: int | Literal["auto"]) -> frozenset[int]:
    """The steps after which the state is always written, as numbers of finished steps: every `every` steps, where an
    adapter is listed, and at the end."""
    due = range(every, steps.total + 1, every) if every != "auto" else ()
    return listed_steps(steps) | {*due, steps.total}


def checkpoint_overdue(seconds_since: float, seconds_stopped: float) -> bool:
    """Whether it is time to write the state: about every 30 s of work, less often if training stops for long while the
    state is copied."""
    return seconds_since >= max(CHECKPOINT_SECONDS, seconds_stopped / CHECKPOINT_SHARE)


@dataclass(frozen=True)
class BestSoFar:
    """The best validation loss, its step, how many validations came after it, and whether the last of them is above it
    by more than noise."""

    loss: float | None = None
    step: int = 0
    since: int = 0
    risen: bool = True

    def after(self, step: int, loss: float, *, risen: bool = True) -> BestSoFar:
        """The best after a validation at `step`; `risen`: whether its loss is above the best by more than noise. A loss
        that is not a number is never an improvement."""
        if math.isfinite(loss) and (self.loss is None or loss < self.loss):
            return BestSoFar(loss, step, 0)
        return BestSoFar(self.loss, self.step, self.since + 1, risen)

    def exhausted(self, patience: int) -> bool:
        """Whether training should stop early; a patience of 0 never does."""
        return patience > 0 and self.since >= patience and self.risen
