"""A text is parted into thoughts and answer in one place, with the marks of every family."""

from __future__ import annotations

import pytest

from shared.conversation.thoughts import MARKS, Parted, after_thoughts, parted, pieces


@pytest.mark.parametrize(("opening", "closing"), MARKS.items())
def test_thoughts_are_what_a_text_begins_with(opening: str, closing: str) -> None:
    assert parted(f"\n{opening}\nwhy\n{closing}\n\nyes") == Parted("\nwhy\n", "\n\nyes")
    assert parted(f"{opening}{closing}yes") == Parted("", "yes")
    assert parted(f"why\n{closing}\n\nyes") == Parted("why\n", "\n\nyes", opened=False)
    assert parted(f"{opening}why") == Parted("why", "", cut=True)


@pytest.mark.parametrize("text", ["", "yes", "Write <think>x</think> around it", " <th", "[think]no[/think]"])
def test_a_text_that_begins_with_none_is_all_answer(text: str) -> None:
    assert parted(text) == Parted(None, text)


def test_thoughts_end_at_the_mark_that_belongs_to_their_beginning() -> None:
    assert parted("<think>is </thinking> a tag?</think>no") == Parted("is </thinking> a tag?", "no")
    assert parted("[THINK]a[/THINK]b", {"<think>": "</think>"}) == Parted(None, "[THINK]a[/THINK]b")


def test_an_earlier_turn_is_looked_for_without_its_thoughts_and_an_answer_around_its_marks() -> None:
    assert after_thoughts("[THINK]a[/THINK]b") == "b"
    assert pieces("<thinking>a</thinking>b") == ["", "a", "b"]
