"""Judges whether a run overfitted: validation loss against training loss, and its trend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shared.events import Overfitting

RISE = 0.02
"""Validation loss counts as risen if it is this share above its best; a smaller rise is the noise of a small validation
set."""
FALL = 0.05
"""A loss counts as flat if it fell by less than this share over the whole run."""


NOISE_ERRORS = 2.0
"""A difference of so many standard errors is seen by chance about once in forty times."""


@dataclass(frozen=True)
class Point:
    """One validation: the loss on unseen rows, and the mean training loss since the validation before."""

    step: int
    train_loss: float
    valid_loss: float


def above_noise(best: Sequence[float], now: Sequence[float], weights: Sequence[int]) -> bool:
    """Whether the mean loss over the same rows rose from `best` to `now` by more than the noise of these rows.

    `best` and `now` hold the loss of each row, summed over what its weight counts. The noise is the standard error of
    the mean difference: rows of which some rose and others fell say little. True if either is not a number.
    """
    total, rows = sum(weights), len(weights)
    differences = [after - before for before, after in zip(best, now, strict=True)]
    rise = sum(differences) / total
    if not math.isfinite(rise):
        return True
    squares = sum((each - rise * weight) ** 2 for each, weight in zip(differences, weights, strict=True))
    error = math.sqrt(squares * rows / max(1, rows - 1)) / total
    return rise > NOISE_ERRORS * error


def judge(points: Sequence[Point]) -> Overfitting:
    """Judge a run by its validations, oldest first.

    Verdicts: `overfitting`: validation loss rose clearly after its best while training loss went on falling.
    `underfitting`: both ended about where they began. `healthy`: neither. `unknown`: fewer than two validations.
    """
    points = [p for p in points if math.isfinite(p.train_loss) and math.isfinite(p.valid_loss)]
    if len(points) < 2:
        reason = "there was no validation data" if not points else "there was only one validation"
        return Overfitting(verdict="unknown", reason=f"{reason}, so the trend of the loss is not known")
    first, last = points[0], points[-1]
    best = min(points, key=lambda p: (p.valid_loss, p.step))
    rise = last.valid_loss / best.valid_loss - 1 if best.valid_loss > 0 else 0.0
    if best is not last and rise > RISE and last.train_loss < best.train_loss:
        reason = (
            f"validation loss rose {rise:.0%} from its best, {best.valid_loss:.3f} at step {best.step}, to "
            f"{last.valid_loss:.3f}, while training loss fell from {best.train_loss:.3f} to {last.train_loss:.3f}"
        )
        return Overfitting(verdict="overfitting", reason=reason, best_step=best.step)
    if best.valid_loss > first.valid_loss * (1 - FALL) and last.train_loss > first.train_loss * (1 - FALL):
        reason = (
            f"validation loss ({first.valid_loss:.3f} to {last.valid_loss:.3f}) and training loss "
            f"({first.train_loss:.3f} to {last.train_loss:.3f}) hardly moved: train longer or with a higher rate"
        )
        return Overfitting(verdict="underfitting", reason=reason, best_step=best.step)
    reason = (
        f"validation loss went from {first.valid_loss:.3f} to {last.valid_loss:.3f}, with its best, "
        f"{best.valid_loss:.3f}, at step {best.step}, beside a training loss of {last.train_loss:.3f}"
    )
    return Overfitting(verdict="healthy", reason=reason, best_step=best.step)
