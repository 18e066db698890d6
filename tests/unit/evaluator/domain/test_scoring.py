"""Scores against values calculated by hand, and ROUGE against the reference package."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from services.evaluator.domain.answers import Answer
from services.evaluator.domain.kinds.labels import find_labels
from services.evaluator.domain.replies import Reply
from services.evaluator.domain.scoring.accuracy import accuracy
from services.evaluator.domain.scoring.exact_match import exact_match
from services.evaluator.domain.scoring.stopping import fair_stop_share, stop_share
from services.evaluator.statistics.macro_f1 import MacroF1
from shared.scoring.labels import label_of
from shared.scoring.rouge import common_subsequence, rouge
from shared.scoring.words import words


def test_rouge_by_hand() -> None:
    # 6 and 5 words; in common: the x2, cat, on (4); bigrams in common: "the cat", "on the" (2 of 5 and 4)
    scores = rouge("The cat sat on the mat.", "the cat lay on the rug"[:18])
    assert words("the cat lay on the rug"[:18]) == ["the", "cat", "lay", "on", "the"]
    assert scores["rouge_1"] == pytest.approx(2 * 4 / 11)
    assert scores["rouge_2"] == pytest.approx(2 * 2 / 9)
    assert scores["rouge_l"] == pytest.approx(2 * 4 / 11)


def test_rouge_l_heeds_the_order() -> None:
    scores = rouge("one two three four", "four three two one")
    assert scores["rouge_1"] == 1.0
    assert scores["rouge_l"] == pytest.approx(0.25)


@given(st.text("ab cd.,X1_", max_size=60), st.text("ab cd.,X1_", max_size=60))
def test_rouge_equals_the_reference_package_on_ascii(reference: str, answer: str) -> None:
    if not any(c.isalnum() for c in reference) or not any(c.isalnum() for c in answer):
        return  # text without words is scored by its characters here and 0 there
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, answer)
    ours = rouge(reference, answer)
    for mine, name in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        assert ours[mine] == pytest.approx(theirs[name].fmeasure)


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_common_subsequence_equals_the_table(left: list[str], right: list[str]) -> None:
    table = np.zeros((len(left) + 1, len(right) + 1), dtype=int)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    assert common_subsequence(left, right) == table[-1, -1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Crème brûlée, s'il vous plaît", ["crème", "brûlée", "s", "il", "vous", "plaît"]),
        ("Ёлка 2024", ["ёлка", "2024"]),
        ("我爱北京", ["我", "爱", "北", "京"]),
        ("Tokyo東京2020", ["tokyo", "東", "京", "2020"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("안녕하세요 세계", ["안녕하세요", "세계"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("👍 +", ["👍", "+"]),
        ("", []),
    ],
)
def test_words_of_other_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_exact_match_ignores_only_white_space_and_unicode_spelling() -> None:
    assert exact_match("a  b\n", " a b") == 1.0
    assert exact_match("caf\u00e9", "cafe\u0301") == 1.0
    assert exact_match("a b", "A b") == 0.0


def test_labels_keep_what_tells_them_apart() -> None:
    assert accuracy("billing", ' "Billing".\n') == 1.0
    assert accuracy("billing", "billing question") == 0.0
    assert len({label_of(text) for text in ("C", "C#", "C++", "+", "-", "!")}) == 6


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("positive", "«Positive»"),
        ("positive", "“Positive”…"),
        ("positive", "\u200epositive\u200f"),
        ("Да", "«ДА!»"),
        ("退款", "退款。"),
        ("退款", "「退款」"),
        ("refund", "ＲＥＦＵＮＤ！"),
        ("نعم", "نعم،"),
        ("نعم", "نعم؟"),
        ("نعم", "\ufeffﻧﻌﻢ"),  # presentation forms
        ("a b", "a\u3000b\u00a0"),
        ("Straße", "STRASSE"),
        ("café", "cafe\u0301."),
        ("हाँ", "हाँ।"),
        ("billing", "**billing**"),
    ],
)
def test_labels_of_any_script_are_compared_without_what_surrounds_them(reference: str, answer: str) -> None:
    assert accuracy(reference, answer) == 1.0


@pytest.mark.parametrize(("one", "other"), [("да", "нет"), ("退款", "退货"), ("5", "5 %"), ("A", "@A"), ("x", "x/y")])
def test_labels_that_differ_stay_apart(one: str, other: str) -> None:
    assert accuracy(one, other) == 0.0


def test_labels_are_found_in_few_short_repeated_answers() -> None:
    assert find_labels([Reply(text=text) for text in ("Refund", "refund.", "Shipping address")] * 5) == (
        "refund",
        "shipping address",
    )


@pytest.mark.parametrize(
    "references",
    [
        [f"label {index}" for index in range(251)] * 10,  # too many
        ["yes", "a rather long answer of seven words"] * 10,  # too long
        ["yes", "no", "maybe"] * 4,  # too few rows for each
        ["yes"] * 100,  # nothing to choose between
        [],
    ],
)
def test_free_text_is_not_taken_for_labels(references: list[str]) -> None:
    assert find_labels([Reply(text=text) for text in references]) is None


def test_macro_f1_by_hand() -> None:
    # a: 2 wanted, 3 given, 2 hit -> F1 4/5; b: 2 wanted, 1 given, 1 hit -> F1 2/3; c: 1 wanted, 0 given -> 0
    measured = MacroF1(["a", "a", "b", "b", "c"], ["a", "a", "a", "b", "what?"])
    assert measured.score() == pytest.approx((0.8 + 2 / 3 + 0) / 3)
    assert measured.pseudo_values().mean() == pytest.approx(measured.score())
    assert MacroF1([], []).score() == 0.0


def test_stop_shares() -> None:
    answers = [
        Answer(text="short", finish_reason="stop"),
        Answer(text="runs on and on", finish_reason="length"),
        Answer(text="cut", finish_reason="length"),
        Answer(error="400: too long"),
    ]
    references = ["short", "runs", "cut off before its reference ends", "x"]
    assert stop_share(answers) == 0.25
    assert fair_stop_share(references, answers) == 0.5  # the first and the second can be judged
    assert fair_stop_share(references[2:], answers[2:]) is None
