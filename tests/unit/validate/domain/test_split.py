"""The split: exact, seeded, and one conversation never in two splits."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from services.validate.columns import KEEP, assign, ranks_of
from services.validate.domain.split import SPLITS, TEST, TRAIN, VALIDATION, Sizes, sizes
from shared.events import Splits

SHARES = st.floats(0, 0.49)
GROUPS = st.lists(st.binary(min_size=1, max_size=2), min_size=10, max_size=200)


def ranks(seed: int, groups: list[bytes]) -> Sequence[int]:
    """Ranks of groups with these names, by digests as rows have them."""
    return ranks_of(seed, array("Q", b"".join(sha256(group).digest()[:8] for group in groups)))


@given(
    st.lists(st.binary(min_size=4, max_size=4), min_size=10, max_size=200, unique=True),
    SHARES,
    SHARES,
    st.integers(0, 2**31 - 1),
)
def test_sizes_are_exact_when_every_example_is_a_group(
    groups: list[bytes], validation: float, test: float, seed: int
) -> None:
    wanted = sizes(len(groups), Splits(validation=validation, test=test), own_validation=False)
    found = Counter(assign(ranks(seed, groups), wanted))
    assert (found[TRAIN], found[VALIDATION], found[TEST]) == wanted
    assert abs(wanted.test - test * len(groups)) <= 1
    assert abs(wanted.validation - validation * len(groups)) <= 1.5  # one less where nothing would be left to train on


@given(GROUPS, SHARES, SHARES, st.integers(0, 2**31 - 1))
def test_no_group_is_in_two_splits_and_none_grows_too_large(
    groups: list[bytes], validation: float, test: float, seed: int
) -> None:
    wanted = sizes(len(groups), Splits(validation=validation, test=test), own_validation=False)
    assignment = assign(ranks(seed, groups), wanted)
    side_of: dict[bytes, int] = {}
    for group, split in zip(groups, assignment, strict=True):
        assert side_of.setdefault(group, split) == split
    assert TRAIN in assignment
    largest = max(Counter(groups).values())
    assert Counter(assignment)[TEST] <= max(wanted.test, largest)
    assert Counter(assignment)[VALIDATION] <= max(wanted.validation, largest)


@given(GROUPS, st.integers(0, 2**31 - 1), st.randoms())
def test_a_split_depends_on_seed_and_content_only(groups: list[bytes], seed: int, random: object) -> None:
    wanted = sizes(len(groups), Splits(), own_validation=False)
    shuffled = list(groups)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one = dict(zip(groups, assign(ranks(seed, groups), wanted), strict=True))
    other = dict(zip(shuffled, assign(ranks(seed, shuffled), wanted), strict=True))
    assert one == other


def test_another_seed_makes_another_split() -> None:
    groups = [bytes([number]) for number in range(100)]
    wanted = sizes(100, Splits(), own_validation=False)
    assert assign(ranks(1, groups), wanted) != assign(ranks(2, groups), wanted)


def test_small_datasets_get_a_row_in_every_split_with_a_share() -> None:
    assert sizes(10, Splits(validation=0.01, test=0.02), own_validation=False) == Sizes(8, 1, 1)
    assert sizes(10, Splits(validation=0, test=0), own_validation=False) == Sizes(10, 0, 0)


def test_a_validation_file_takes_the_place_of_the_validation_share() -> None:
    assert sizes(100, Splits(validation=0.2, test=0.1), own_validation=True) == Sizes(90, 0, 10)


def test_a_split_that_only_large_groups_could_fill_takes_the_smallest() -> None:
    ranks = [1] * 6 + [2] * 4 + [3] * 10
    assignment = assign(ranks, Sizes(16, 2, 2))
    assert [SPLITS[assignment[row]] for row in (0, 6, 10)] == ["validation", "test", "train"]


def test_something_is_always_left_to_train_on() -> None:
    assert set(assign([7] * 20, Sizes(16, 2, 2))) == {TRAIN}
    assert TRAIN in assign([1] * 5 + [2] * 5, Sizes(1, 5, 4))
    assert sizes(10, Splits(validation=0.49, test=0.49), own_validation=False) == Sizes(1, 4, 5)


def test_rows_that_must_be_trained_on_fill_no_other_split() -> None:
    assert list(assign([KEEP] * 2 + [1] * 4, Sizes(2, 2, 2))) == [TRAIN] * 2 + [TEST] * 4
    assert set(assign([KEEP] * 20, Sizes(16, 2, 2))) == {TRAIN}
