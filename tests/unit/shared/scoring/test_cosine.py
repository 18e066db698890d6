"""Cosine similarity, from 0 to 1."""

from __future__ import annotations

import pytest

from shared.scoring.cosine import cosine, without_vectors


@pytest.mark.parametrize(
    ("reference", "answer", "score"),
    [("", "", 1.0), (" \n", "", 1.0), ("Paris", "Paris ", 1.0), ("Paris", "", 0.0), ("\t", "Paris", 0.0)],
)
def test_equal_and_empty_texts_have_a_score_without_a_model(reference: str, answer: str, score: float) -> None:
    assert without_vectors(reference, answer) == score


def test_other_texts_need_their_vectors() -> None:
    assert without_vectors("Paris", "Rome") is None


@pytest.mark.parametrize(
    ("one", "other", "score"),
    [
        ((1.0, 0.0), (1.0, 0.0), 1.0),
        ((3.0, 4.0), (6.0, 8.0), 1.0),
        ((1.0, 0.0), (0.0, 1.0), 0.0),
        ((1.0, 0.0), (1.0, 1.0), 0.5**0.5),
        ((1.0, 0.0), (-1.0, 0.0), 0.0),
        ((0.0, 0.0), (1.0, 0.0), 0.0),
    ],
)
def test_the_score_is_the_cosine_and_never_below_zero(
    one: tuple[float, ...], other: tuple[float, ...], score: float
) -> None:
    assert cosine(one, other) == pytest.approx(score)
    assert 0 <= cosine(one, other) <= 1
