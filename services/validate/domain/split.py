"""The seeded split into train, validation and test: exact sizes, and one conversation never in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from services.validate.domain.links import KEEP
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


def rank(seed: int, group: bytes) -> int:
    """A 64-bit number that depends on the seed and the group alone, not on other rows or their order."""
    key = seed.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(group, digest_size=8, key=key).digest(), "little")


def assign(ranks: Sequence[int], wanted: Sizes) -> bytearray:
    """The index in `SPLITS` of every row's split; rows of one rank are one group and stay together.

    Groups are taken in the order of their ranks: first for the test split, then for validation; the rest is trained on.
    A group that is larger than what a split still lacks is passed over. So a split is never larger than wanted, and it
    is smaller only where groups of several rows leave no other choice. A split that would stay empty takes the smallest
    group that is left. The last group is always left to train on, and so are rows of rank `KEEP`.
    """
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    assignment = bytearray(len(ranks))
    left = sum(1 for _ in groupby(order, key=ranks.__getitem__))
    for split, target in ((TEST, wanted.test), (VALIDATION, wanted.validation)):
        room = target
        smallest: list[int] = []
        for _, members in groupby(order, key=ranks.__getitem__):
            rows = list(members)
            if assignment[rows[0]] != TRAIN or ranks[rows[0]] == KEEP:
                continue
            if len(rows) <= room and left > 1:
                room -= len(rows)
                left -= 1
                _mark(assignment, rows, split)
            elif not smallest or len(rows) < len(smallest):
                smallest = rows
        if room == target > 0 and left > 1:
            left -= 1
            _mark(assignment, smallest, split)
    return assignment


def _mark(assignment: bytearray, rows: list[int], split: int) -> None:
    for row in rows:
        assignment[row] = split
