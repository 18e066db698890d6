"""The split of a dataset of labels: every label is in each split in proportion."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from services.validate.domain.split import TEST, TRAIN, VALIDATION, Sizes


def stratified(ranks: Sequence[int], labels: Sequence[int], wanted: Sizes, kept: int) -> bytearray:
    """The index in `SPLITS` of every row's split, like `assign`: rows of one rank stay together, and the order of ranks
    decides which groups are taken first. `labels`: a number for the label of each row.

    Each label gives a split its share of the rows, by the method of largest remainders; at least one if it has rows
    enough to be in all splits. A label that has one group is only trained on, and so are rows of the rank `kept`. A
    group of several labels counts as one of its first row's. Sizes are as wanted, but where groups of several rows do
    not fit.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for row, rank in enumerate(ranks):
        groups[rank].append(row)
    assignment = bytearray(len(ranks))
    free: dict[int, list[list[int]]] = defaultdict(list)
    for rank in sorted(groups):
        if rank != kept:
            free[labels[groups[rank][0]]].append(groups[rank])
    for split, target in ((TEST, wanted.test), (VALIDATION, wanted.validation)):
        rows = {label: sum(map(len, there)) for label, there in free.items() if len(there) > 1}
        for label, room in _quotas(rows, target).items():
            for group in _taken(free[label], room):
                for row in group:
                    assignment[row] = split
    assert TRAIN == 0, "rows that no split has taken are trained on"
    return assignment


def _quotas(rows: Mapping[int, int], target: int) -> dict[int, int]:
    """`target` rows, shared among the labels in proportion to their rows; every label gets one if there are so many."""
    total = sum(rows.values())
    if not total or target <= 0:
        return {}
    exact = {label: target * count / total for label, count in rows.items()}
    quotas = {label: int(share) for label, share in exact.items()}
    if target >= len(rows):
        quotas = {label: max(1, quota) for label, quota in quotas.items()}
    # the labels with the largest remainders, and of these the more frequent ones, are rounded up
    order = sorted(rows, key=lambda label: (exact[label] - quotas[label], rows[label], label), reverse=True)
    for label in order[: max(0, target - sum(quotas.values()))]:
        quotas[label] += 1
    while sum(quotas.values()) > target:
        most = max(
            (label for label in quotas if quotas[label] > 1), key=lambda label: (quotas[label] - exact[label], label)
        )
        quotas[most] -= 1
    return quotas


def _taken(groups: list[list[int]], room: int) -> Iterator[list[int]]:
    """Groups that fit, in their order; they are removed from the list. One is always left."""
    for group in list(groups):
        if len(group) <= room and len(groups) > 1:
            groups.remove(group)
            room -= len(group)
            yield group
        if room == 0:
            return
