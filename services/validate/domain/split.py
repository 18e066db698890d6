"""The seeded split into train, validation and test: how large each is, and in which order rows are taken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
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


def rank(seed: int, group: bytes) -> int:
    """A 64-bit number that depends on the seed and the group alone, not on other rows or their order."""
    return int.from_bytes(ranks_of(seed, [group]), "little")


def ranks_of(seed: int, groups: Iterable[bytes]) -> bytes:
    """The ranks of many groups, 8 bytes each, the lowest first."""
    keyed = hashlib.blake2b(digest_size=8, key=seed.to_bytes(8, "little"))
    ranks = []
    for group in groups:
        ranked = keyed.copy()
        ranked.update(group)
        ranks.append(ranked.digest())
    return b"".join(ranks)
