"""Which queries count as near-duplicates."""

from __future__ import annotations

import pytest

from services.ingest.synthesis.near_duplicates import NearDuplicates
from tests.unit.ingest.synthesis.world import words

QUERY = "Hello, my parcel with the number 48213 was due on Monday and has not arrived. Where is it?"


@pytest.mark.parametrize(
    "text",
    [QUERY, QUERY.upper(), QUERY.replace(" ", "\n  "), QUERY.replace("48213", "48219"), QUERY.replace("Hello", "Hi")],
)
def test_a_query_with_small_changes_is_one(text: str) -> None:
    near = NearDuplicates(0.7)
    near.add("first", QUERY)
    assert near.like(text) == QUERY


@pytest.mark.parametrize("text", ["", "?", "Can I have my money back?", "My parcel arrived on Monday, broken."])
def test_another_query_is_none(text: str) -> None:
    near = NearDuplicates(0.7)
    near.add("first", QUERY)
    assert near.like(text) is None


def test_the_same_short_text_is_one_in_every_script() -> None:
    near = NearDuplicates(0.8)
    for text in ("ok", "はい", "где?"):
        assert near.like(text) is None
        near.add(text, text)
        assert near.like(text) == text


def test_what_is_removed_is_forgotten() -> None:
    near = NearDuplicates(0.8)
    near.add("first", QUERY)
    near.remove("first")
    near.remove("never added")
    assert near.like(QUERY) is None


def test_one_of_many_is_found_and_none_is_made_up() -> None:
    near = NearDuplicates(0.8)
    texts = [words(str(number)) for number in range(500)]
    for number, text in enumerate(texts):
        assert near.like(text) is None
        near.add(number, text)
    assert all(near.like(text[:-3]) == text for text in texts)
