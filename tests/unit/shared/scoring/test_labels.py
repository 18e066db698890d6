"""Labels: one spelling for all who compare them, and one rule for what is a set of labels."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.scoring.labels import MAX_LABELS, are_labels, label_of, short_label_of

NOTHING = "\u200b"
"""A character without width, which no label has."""


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_spelled_as_the_same_text_among_other_characters(text: str) -> None:
    assert label_of(text) == label_of(text + NOTHING)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (" «Refund».\n", "refund"),
        ("a b c d e", "a b c d e"),
        ("a b c d e f", None),
        ("退款" * 101, None),
        ("", None),
        (NOTHING, None),
    ],
)
def test_a_label_is_short(answer: str, label: str | None) -> None:
    assert short_label_of(answer) == label


@pytest.mark.parametrize(
    ("counts", "labels"),
    [
        ({"a": 5, "b": 5}, True),
        ({"a": 1, "b": 9}, True),
        ({"a": 10}, False),
        ({"a": 5, "b": 4}, False),
        ({str(n): 20 for n in range(MAX_LABELS)}, True),
        ({str(n): 20 for n in range(MAX_LABELS + 1)}, False),
        ({**{str(n): 8 for n in range(95)}, **{f"single {n}": 1 for n in range(40)}}, True),
        ({**{str(n): 8 for n in range(95)}, **{f"single {n}": 1 for n in range(41)}}, False),
    ],
)
def test_labels_are_few_and_come_often(counts: dict[str, int], labels: bool) -> None:
    assert are_labels(Counter(counts)) == labels
