"""The seeded split into train, validation and test: exact sizes, and one conversation never on two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from shared.events import Splits

TRAIN, VALIDATION, TEST = range(3)
SIDES = ("train", "validation", "test")


class Sizes(NamedTuple):
    """How many examples each side should have."""

    train: int
    validation: int
    test: int


def sizes(examples: int, shares: Splits, *, own_validation: bool) -> Sizes:
    """The sizes for `examples` rows. A share above zero gets at least one row; a validation file of its own
    (`own_validation`) takes the place of the validation share."""
    validation = 0 if own_validation else _part(examples, shares.validation)
    test = _part(examples, shares.test)
    validation = min(validation, max(0, examples - test - 1))  # two shares near a half, rounded up, are everything
    return Sizes(examples - validation - test, validation, test)


def _part(examples: int, share: float) -> int:
    return max(1, round(examples * share)) if share > 0 else 0


def rank(seed: int, group: bytes) -> int:
    """A 64-bit number that depends on the seed and the group only: neither on other rows nor on their order."""
    key = seed.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(group, digest_size=8, key=key).digest(), "little")


def assign(ranks: Sequence[int], wanted: Sizes) -> bytearray:
    """The side of every row; rows of one rank are one group and stay together.

    Groups are taken in the order of their ranks: first into the test side, then into validation, the rest trains.
    A group that is larger than what a side still lacks is passed over, so a side is never larger than wanted, and
    smaller only where groups of several rows leave no other choice. A side that would stay empty takes the smallest
    group that is left. The last group is always left to train on.
    """
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    sides = bytearray(len(ranks))
    left = sum(1 for _ in groupby(order, key=ranks.__getitem__))
    for side, target in ((TEST, wanted.test), (VALIDATION, wanted.validation)):
        room = target
        smallest: list[int] = []
        for _, members in groupby(order, key=ranks.__getitem__):
            rows = list(members)
            if sides[rows[0]] != TRAIN:
                continue
            if len(rows) <= room and left > 1:
                room -= len(rows)
                left -= 1
                _mark(sides, rows, side)
            elif not smallest or len(rows) < len(smallest):
                smallest = rows
        if room == target > 0 and left > 1:
            left -= 1
            _mark(sides, smallest, side)
    return sides


def _mark(sides: bytearray, rows: list[int], side: int) -> None:
    for row in rows:
        sides[row] = side
