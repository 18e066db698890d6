"""The rows side by side of an evaluation: filters, orders and the search do what their names say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.api.resources.artifacts.routes import HEADERS
from tests.pages.browser import Browser, Step
from tests.pages.evaluations import SAID
from tests.pages.made import MANY

ALL = sorted(range(1, len(SAID) + 1))
SEARCH = ("searchbox", "Search the examples")


def click(button: str) -> Step:
    return ("click", "button", button)


def search(text: str) -> Step:
    return ("type", *SEARCH, text)


@pytest.fixture
def evaluation(pages: Mapping[str, Path]) -> Path:
    return pages["evaluation"]


def after(browser: Browser, page: Path, *steps: Step) -> dict[str, Any]:
    """What is seen after the steps."""
    visit = browser.visit(page, *steps)
    assert visit.troubles == []
    return visit.seen[-1]


def test_at_first_all_rows_are_there_with_the_biggest_change_first(browser: Browser, evaluation: Path) -> None:
    state = after(browser, evaluation)
    assert state["rows"] == [1, 2, 4, 5, 3, 6, 7, 8]
    assert state["said"] == "" and state["pressed"] == ["All 8", "Biggest change", "Differences"]


@pytest.mark.parametrize(
    ("button", "rows"),
    [("Better 2", [1, 4]), ("Unchanged 4", [3, 6, 7, 8]), ("Worse 2", [2, 5]), ("All 8", ALL)],
)
def test_a_filter_leaves_its_rows_and_says_how_many(
    browser: Browser, evaluation: Path, button: str, rows: list[int]
) -> None:
    state = after(browser, evaluation, click(button))
    assert sorted(state["rows"]) == rows
    assert state["said"] == ("" if rows == ALL else f"{len(rows)} of 8 shown")
    assert state["pressed"] == [button, "Biggest change", "Differences"]


@pytest.mark.parametrize(
    ("button", "rows"),
    [
        ("Biggest change", [1, 2, 4, 5, 3, 6, 7, 8]),
        ("Biggest gain", [1, 4, 3, 6, 7, 8, 5, 2]),
        ("Biggest loss", [2, 5, 3, 6, 7, 8, 4, 1]),
        ("Best answers", [1, 6, 4, 5, 2, 3, 7, 8]),
        ("Worst answers", [2, 3, 7, 8, 4, 5, 1, 6]),
        ("In order", ALL),
    ],
)
@pytest.mark.parametrize("before", ["In order", "Worst answers", "Biggest loss"])
def test_an_order_is_the_same_whatever_the_order_was_before(
    browser: Browser, evaluation: Path, before: str, button: str, rows: list[int]
) -> None:
    state = after(browser, evaluation, click(before), click(button))
    assert state["rows"] == rows
    assert state["pressed"] == ["All 8", button, "Differences"]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("parcel", [5]),
        ("  PARCEL from oslo ", [5]),  # in the row, a line ends between the words
        ("tuned", [6]),  # a word that is on all cards, as the name of a side
        ("script>window", [2, 7]),
        ("no such words", []),
        ("", ALL),
    ],
)
def test_the_search_looks_at_what_was_asked_and_answered(
    browser: Browser, evaluation: Path, text: str, rows: list[int]
) -> None:
    assert sorted(after(browser, evaluation, search(text))["rows"]) == rows


def test_the_search_finds_calls(browser: Browser, evaluation: Path) -> None:
    assert after(browser, evaluation, search('look {"order": 1}'))["rows"] == [8]


def test_a_slice_leaves_its_rows(browser: Browser, evaluation: Path) -> None:
    state = after(browser, evaluation, ("choose", "combobox", "Slice", "sort = a"))
    assert sorted(state["rows"]) == [2, 4, 6, 8]
    assert after(browser, evaluation, ("choose", "combobox", "Slice", "All slices"))["said"] == ""


def test_filter_slice_search_and_order_work_together_and_can_be_taken_back(browser: Browser, evaluation: Path) -> None:
    steps = (
        click("Worse 2"),
        click("Biggest gain"),
        ("choose", "combobox", "Slice", "sort = b"),
        search("oslo"),
        search("nothing"),
        search(""),
        ("choose", "combobox", "Slice", "All slices"),
        click("All 8"),
    )
    rows = [state["rows"] for state in browser.visit(evaluation, *steps).seen[1:]]
    assert rows == [[2, 5], [5, 2], [5], [5], [], [5], [5, 2], [1, 4, 3, 6, 7, 8, 5, 2]]


def test_differences_can_be_hidden_and_shown_again(browser: Browser, evaluation: Path) -> None:
    seen = browser.visit(evaluation, click("Differences"), click("Differences")).seen
    assert [state["differences"] > 0 for state in seen] == [True, False, True]
    assert ["Differences" in state["pressed"] for state in seen] == [True, False, True]


def test_buttons_obey_the_keyboard(browser: Browser, evaluation: Path) -> None:
    enter, space = ("press", "button", "Worse 2", "Enter"), ("press", "button", "In order", "Space")
    assert after(browser, evaluation, enter, space)["rows"] == [2, 5]


def test_the_page_works_as_the_api_sends_it(browser: Browser, evaluation: Path) -> None:
    visit = browser.visit(evaluation, click("Worse 2"), search("oslo"), headers=HEADERS)
    assert visit.troubles == []
    assert visit.seen[-1]["rows"] == [5] and visit.seen[-1]["ran"] is None


def test_many_rows_are_filtered_ordered_and_searched(browser: Browser, pages: Mapping[str, Path]) -> None:
    better, worse = list(range(2, MANY + 1, 3)), list(range(1, MANY + 1, 3))
    steps = (
        click(f"Better {len(better)}"),
        click("In order"),
        click(f"Worse {len(worse)}"),
        search(f"question {MANY - 1}"),
    )
    seen = browser.visit(pages["many-rows"], *steps).seen
    assert len(seen[0]["rows"]) == MANY
    assert sorted(seen[1]["rows"]) == better
    assert [state["rows"] for state in seen[2:]] == [better, worse, [MANY - 1]]
