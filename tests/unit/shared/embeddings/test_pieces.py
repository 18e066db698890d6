"""Long texts are embedded in pieces."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.embeddings.pieces import mean, pieces


def offsets(text: str) -> list[tuple[int, int]]:
    """Tokens of up to three letters, as a tokenizer parts words."""
    return [match.span() for match in re.finditer(r"\w{1,3}|[^\w\s]", text)]


def test_a_short_text_is_one_piece() -> None:
    assert pieces("hi you", offsets("hi you"), 10) == [("hi you", 2)]
    assert pieces("…", [], 10) == [("…", 1)]


def test_a_long_text_is_cut_between_words_into_pieces_of_about_the_same_length() -> None:
    text = " ".join(["one two three four five"] * 8)
    found = pieces(text, offsets(text), 20)
    assert [piece.tokens for piece in found] == [16, 16, 16, 16]
    assert all(word in {"one", "two", "three", "four", "five"} for piece in found for word in piece.text.split())


@given(st.text(alphabet="abc .,\n", max_size=300), st.integers(1, 40))
def test_no_token_is_lost_and_no_piece_is_too_long(text: str, room: int) -> None:
    tokens = offsets(text)
    found = pieces(text, tokens, room)
    assert "".join(piece.text for piece in found) in (text, text[tokens[0][0] :] if tokens else text)
    assert sum(piece.tokens for piece in found) == max(1, len(tokens))
    assert max(piece.tokens for piece in found) <= max(1, room)


def test_the_mean_is_weighted_and_has_a_length_of_one() -> None:
    assert list(mean([[1.0, 0.0], [0.0, 1.0]], [3, 4])) == pytest.approx([0.6, 0.8])
    assert list(mean([[0.0, 5.0]], [7])) == pytest.approx([0.0, 1.0])
    assert list(mean([[0.0, 0.0]], [1])) == [0.0, 0.0]
