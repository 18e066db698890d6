"""The language of filters: what it understands, and that it can do nothing but compare."""

from __future__ import annotations

from typing import Any

import pytest

from services.ingest.domain.mining.filters import Filter
from services.ingest.domain.mining.left_out import LeftOut
from shared.errors import InputError

COLUMNS = ["satisfaction_score", "language", "First Name", "resolved", "ticket.priority"]
ROW: dict[str, Any] = {
    "satisfaction_score": "4.0",
    "language": "en",
    "First Name": "Ann O'Neil",
    "resolved": "yes",
    "ticket": {"priority": 2},
}


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        ("satisfaction_score >= 4", True),
        ("SatisfactionScore > 4", False),
        ("satisfaction_score = 4 AND language <> 'de'", True),
        ('language in ("de", "fr") or resolved', True),
        ("language not in ('en', 'fr')", False),
        ("not (language == 'en')", False),
        ("`First Name` == 'Ann O''Neil'", True),
        ("contains(`first name`, 'NEIL') and length(language) == 2", True),
        ("ticket.priority < 3 and ticket.priority > -1", True),
        ("resolved == true and language is not null", True),
        ("language == null", False),
        ("starts_with(language, 'E')", True),
    ],
)
def test_what_is_kept(text: str, keeps: bool) -> None:
    assert Filter(text, COLUMNS).keeps(ROW) is keeps


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_a_comparison_with_nothing_is_false(empty: str | None) -> None:
    row = ROW | {"satisfaction_score": empty}
    assert not Filter("satisfaction_score >= 0", COLUMNS).keeps(row)
    assert not Filter("satisfaction_score < 0", COLUMNS).keeps(row)
    assert Filter("satisfaction_score is null", COLUMNS).keeps(row)


def test_a_decimal_comma_is_understood() -> None:
    assert Filter("satisfaction_score == 4.5", COLUMNS).keeps(ROW | {"satisfaction_score": "4,5"})


def test_a_cell_that_is_no_number_leaves_its_row_out() -> None:
    with pytest.raises(LeftOut, match="satisfaction_score is 'great', which is no number"):
        Filter("satisfaction_score >= 4", COLUMNS).keeps(ROW | {"satisfaction_score": "great"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("satisfaction >= 4", "did you mean 'satisfaction_score'"),
        ("__import__('os').system('true')", "is not understood"),
        ("open('/etc/passwd')", "there is no function open"),
        ("satisfaction_score >=", "a value is missing at the end"),
        ("(language == 'en'", "')' is missing at the end"),
        ("language = 'en' language", "is not expected here"),
        ("language in 'en'", "after `in` comes a list"),
        ("length(language, 2) > 1", "length takes 1 value"),
        ("lambda: 1", "is not understood"),
        ("(" * 100 + "resolved" + ")" * 100, "nested too deeply"),
        ("resolved or " * 300, "more than 2000 characters"),
        (" ", "it is empty"),
    ],
)
def test_what_is_no_filter_is_refused_with_words(text: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        Filter(text, COLUMNS)
    assert words.lower() in refused.value.message.lower()
    assert refused.value.param == "source.filter"
