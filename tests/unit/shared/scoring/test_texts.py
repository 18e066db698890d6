"""BLEU and GLEU against nltk, ROUGE against the reference package, fuzzy matching against its definition."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from nltk.translate.gleu_score import sentence_gleu
from rouge_score.rouge_scorer import RougeScorer

from shared.scoring.bleu import bleu, gleu
from shared.scoring.fuzzy import fuzzy_match
from shared.scoring.rouge import rouge, rouge_l, rouge_n
from shared.scoring.words import normalized, words

SENTENCES = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat"]), max_size=14).map(" ".join)


@given(SENTENCES, SENTENCES)
def test_bleu_equals_nltk(reference: str, answer: str) -> None:
    given_words = words(answer)
    orders = min(4, len(given_words))
    weights = [1 / orders] * orders if orders else [1.0]
    smoothing = SmoothingFunction().method2
    theirs = sentence_bleu([words(reference)], given_words, weights, smoothing) if given_words else 0.0
    assert bleu(reference, answer) == pytest.approx(theirs)


@given(SENTENCES, SENTENCES)
def test_gleu_equals_nltk(reference: str, answer: str) -> None:
    theirs = sentence_gleu([words(reference)], words(answer)) if words(reference) or words(answer) else 0.0
    assert gleu(reference, answer) == pytest.approx(theirs)


@given(SENTENCES, SENTENCES, st.integers(1, 5))
def test_rouge_of_any_n_equals_the_reference_package(reference: str, answer: str, n: int) -> None:
    theirs = RougeScorer([f"rouge{n}", "rougeL"]).score(reference, answer)
    assert rouge_n(reference, answer, n) == pytest.approx(theirs[f"rouge{n}"].fmeasure)
    assert rouge_l(reference, answer) == pytest.approx(theirs["rougeL"].fmeasure)
    if n <= 2:
        assert rouge(reference, answer)[f"rouge_{n}"] == rouge_n(reference, answer, n)


@given(st.text(max_size=60))
def test_words_are_those_of_the_normalized_text(text: str) -> None:
    assert normalized(text) == unicodedata.normalize("NFKC", text)
    assert words(text) == words(unicodedata.normalize("NFKC", text))


def test_marks_without_end_do_not_stop_the_process() -> None:
    begun = time.process_time()
    text = "\u0301" * 50_000 + "\u0323" * 50_000  # takes ten seconds to sort
    assert len(words("a" + text)) == 1
    assert words("é" + text + " b")[1:] == ["b"]
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("this is a test", "this is a test!", 2 * 14 / 29),  # the example in the documentation of rapidfuzz: 96.55
        ("fuzzy wuzzy was a bear", "wuzzy fuzzy was a bear", 0.909090909),  # another one of it
        ("", "", 1.0),
        ("", "x", 0.0),
        ("Paris", "paris", 0.8),
        ("日本", "日木", 0.5),
    ],
)
def test_fuzzy_match(reference: str, answer: str, expected: float) -> None:
    assert fuzzy_match(reference, answer) == pytest.approx(expected)


@given(st.text(max_size=60), st.text(max_size=60))
def test_scores_are_from_0_to_1_and_1_of_equal_texts(reference: str, answer: str) -> None:
    for score in (bleu, gleu, rouge_l, fuzzy_match):
        assert 0 <= score(reference, answer) <= 1 + 1e-9
        if words(reference):
            assert score(reference, reference) == pytest.approx(1)
    assert 0 <= rouge_n(reference, answer, 3) <= 1
