"""The number in what a model answers, and comparisons of texts."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.graders.domain.graders import StringCheck, TextSimilarity
from shared.graders.domain.scores import (
    MAX_COMPARED,
    TooLongToCompare,
    score_in,
    string_check,
    text_similarity,
)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"result": 0.8}', 0.8),
        ('{"steps": [{"conclusion": "3"}], "result": 1}', 1),
        ('```json\n{"score": "0.25"}\n```', 0.25),
        ('{"result": true}', None),
        ('{"result": NaN}', None),
        ("0.5", 0.5),
        (" -1 \n", -1),
        ("7.", 7),
        (".5", 0.5),
        ("1e-1", 0.1),
        ("Score: 0.8", 0.8),
        ("**Score:** 4/5", 4),
        ("I give it 4 out of 5.", 4),
        ("There are 3 errors in 2 lines. Final score: 0.2", 0.2),
        ("The score is 0.7.", 0.7),
        ("Score: 0.1 at first. After another look, score: 0.9", 0.9),
        ("<think>maybe 3, or 4</think>0.6", 0.6),
        ("<think>maybe 3", None),
        ("It has 3 errors in 2 lines.", None),
        ("between 0-1", None),
        ("1,000", None),
        ("5 3", None),
        ("no number", None),
        ("", None),
        ("gpt4 v2", None),
        ("nan", None),
        ("1e999", None),
        ("Infinity", None),
    ],
)
def test_the_score_in_an_answer(answer: str, score: float | None) -> None:
    assert score_in(answer) == score


@given(st.one_of(st.text(max_size=200), st.text('0123456789.,-+eE/ {}":score<think>', max_size=200)))
def test_any_answer_has_a_score_or_none(answer: str) -> None:
    assert score_in(answer) is None or isinstance(score_in(answer), float)


def test_an_endless_answer_is_read_in_time() -> None:
    begun = time.process_time()
    for piece in ("1", "1 ", "score: ", "score is", "{", "[", '{"a":', "4 / ", "4 out of ", "-"):
        score_in(piece * 200_000)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("operation", "given_text", "reference", "score"),
    [
        ("eq", "a", "a", 1),
        ("eq", "a", "A", 0),
        ("ne", "a", "A", 1),
        ("ne", "a", "a", 0),
        ("like", "It is Paris.", "Paris", 1),
        ("like", "It is Paris.", "paris", 0),
        ("like", "Paris", "It is Paris.", 0),
        ("ilike", "It is PARIS.", "paris", 1),
        ("ilike", "STRASSE", "straße", 1),
        ("ilike", "London", "paris", 0),
    ],
)
def test_string_checks(operation: str, given_text: str, reference: str, score: float) -> None:
    grader = StringCheck.model_validate(
        {"type": "string_check", "name": "n", "input": "", "reference": "", "operation": operation}
    )
    assert string_check(grader, given_text, reference) == score


def similarity(metric: str) -> TextSimilarity:
    return TextSimilarity.model_validate(
        {"type": "text_similarity", "name": "n", "input": "", "reference": "", "evaluation_metric": metric}
    )


METRICS = ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"]


@pytest.mark.parametrize("metric", METRICS)
def test_similarities(metric: str) -> None:
    text = "the quick brown fox jumps"
    assert text_similarity(similarity(metric), text, text) == pytest.approx(1)
    assert text_similarity(similarity(metric), "zzz", text) == 0
    assert 0 < text_similarity(similarity(metric), "see the quick brown fox jumps", text) < 1


@pytest.mark.parametrize("metric", METRICS)
def test_the_largest_texts_are_compared_in_time_and_larger_ones_are_refused(metric: str) -> None:
    different = "".join(chr(0x4E00 + number % 20_000) for number in range(MAX_COMPARED))
    begun = time.process_time()
    text_similarity(similarity(metric), different, different[::-1])
    text_similarity(similarity(metric), "ab " * (MAX_COMPARED // 3), "ba " * (MAX_COMPARED // 3))
    assert time.process_time() - begun < 20
    for long in ("x" * (MAX_COMPARED + 1), "\ufdfa" * (MAX_COMPARED // 2)):
        with pytest.raises(TooLongToCompare):
            text_similarity(similarity(metric), long, "x")
        with pytest.raises(TooLongToCompare):
            text_similarity(similarity(metric), "x", long)
