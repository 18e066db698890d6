"""The seeded split into train, validation and test: how large each is."""

from __future__ import annotations

from typing import NamedTuple

from shared.events import Splits

TRAIN, VALIDATION, TEST = range(3)
SPLITS = ("train", "validation", "test")


class Sizes(NamedTuple):
    """How many examples each split should have."""

    train: int
    validation: int
    test: int


def sizes(examples: int, shares: Splits, *, own_validation: bool) -> Sizes:
    """The sizes for `examples` rows. A share above zero gets at least one row.

    `own_validation`: the job has a validation file, which takes the place of the validation share.
    """
    validation = 0 if own_validation else _part(examples, shares.validation)
    test = _part(examples, shares.test)
    # Two shares of about a half, both rounded up, would leave nothing to train on.
    validation = min(validation, max(0, examples - test - 1))
    return Sizes(examples - validation - test, validation, test)


def _part(examples: int, share: float) -> int:
    return max(1, round(examples * share)) if share > 0 else 0
