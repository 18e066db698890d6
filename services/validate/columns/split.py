"""Assigns rows to splits by their ranks: exact sizes, and one conversation never in two of them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

import numpy as np

from services.validate.columns.links import KEEP
from services.validate.domain.split import TEST, VALIDATION, Sizes
from services.validate.splitmix import mixed

_CHUNK = 2**18  # ranks that are made at once


def ranks_of(seed: int, groups: array[int]) -> array[int]:
    """A rank of 64 bits for every row from its group's 64 bits, which must look like random ones: a rank depends on the
    seed and the group alone, not on other rows or their order. Different groups have different ranks."""
    key = np.frombuffer(hashlib.sha256(seed.to_bytes(8, "little")).digest(), np.uint64)[0]
    found = array("Q", groups)
    for begin in range(0, len(found), _CHUNK):
        some = np.frombuffer(found, np.uint64)[begin : begin + _CHUNK]
        some ^= key
        mixed(some)
    return found


def assign(ranks: Sequence[int], wanted: Sizes) -> bytearray:
    """The index in `SPLITS` of every row's split; rows of one rank are one group and stay together.

    Groups are taken in the order of their ranks: first for the test split, then for validation; the rest is trained on.
    A group that is larger than what a split still lacks is passed over. So a split is never larger than wanted, and it
    is smaller only where groups of several rows leave no other choice. A split that would stay empty takes the smallest
    group that is left. The last group is always left to train on, and so are rows of rank `KEEP`.
    """
    assignment = bytearray(len(ranks))
    if not ranks:
        return assignment
    table = np.array(ranks, np.uint64)
    order = np.argsort(table, kind="stable").astype(np.uint32)
    begins = np.flatnonzero(np.concatenate(([True], np.diff(table[order]) != 0)))
    sizes = np.diff(begins, append=len(ranks))
    keeps = table[order[-1]] == KEEP  # as the largest rank, it is the last group
    del table
    splits = np.frombuffer(assignment, np.uint8)
    taken = np.zeros(len(begins), bool)
    left = len(begins)

    def take(group: int, split: int) -> None:
        taken[group] = True
        splits[order[begins[group] : begins[group] + sizes[group]]] = split

    for split, target in ((TEST, wanted.test), (VALIDATION, wanted.validation)):
        room = target
        smallest = None
        for group in range(len(begins) - int(keeps)):
            if room == 0 or left <= 1:
                break
            size = sizes[group]
            if taken[group]:
                continue
            if size <= room:
                room -= int(size)
                left -= 1
                take(group, split)
            elif smallest is None or size < sizes[smallest]:
                smallest = group
        if room == target > 0 and left > 1 and smallest is not None:
            left -= 1
            take(smallest, split)
    return assignment
