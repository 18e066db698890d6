"""The label in the answer of a model that grades."""

from __future__ import annotations

import pytest

from shared.graders.domain.scores import label_in

LABELS = ["warm", "cold", "very cold"]


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ('{"label": "warm"}', "warm"),
        ('Sure: {"label": "Cold"}', "cold"),
        ('{"result": "very cold"}', "very cold"),
        ("warm", "warm"),
        ("**Warm.**", "warm"),
        ("I would call it warm, all in all.", "warm"),
        ("<think>cold? no</think>warm", "warm"),
        ("Either warm or cold.", None),
        ("lukewarm", None),
        ("<think>warm", None),
        ("", None),
        ('{"label": 3}', None),
        ("It is very cold.", None),  # "cold" is in it, too
    ],
)
def test_a_label_is_found_where_it_is_clear(answer: str, label: str | None) -> None:
    assert label_in(answer, LABELS) == label


def test_labels_that_differ_by_case_only_are_told_apart_by_it() -> None:
    assert label_in("US", ["us", "US"]) == "US"
