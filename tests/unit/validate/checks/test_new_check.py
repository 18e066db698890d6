"""A new check needs one file and one line in the registry: from these the report and its messages know it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from services.validate import checks
from services.validate.checks import REGISTRY, Check
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding
from tests.unit.validate.conftest import Examine, completions


class Greetings(Check):
    """A check that exists only in this file: it drops rows whose completion is a greeting."""

    name = "greetings"
    drops: ClassVar = {"greeting": "only greet"}

    def row(self, row: Row) -> Iterator[Finding]:
        if row.value["completion"] == "Hello!":
            yield Finding("greeting", "completion", "only greets", "write an answer", "warning", drops=True)
        elif row.value["completion"].endswith("?"):
            yield Finding("question", "completion", "asks back", "write an answer", "warning")


ROWS = [*completions(9), *({"prompt": f"Hi, I am {name}.", "completion": "Hello!"} for name in ("Ann", "Bo", "Cy"))]


@pytest.fixture(autouse=True)
def one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "REGISTRY", (*REGISTRY, Greetings))


def test_the_report_has_its_name_its_count_and_its_words(run: Examine) -> None:
    report = run([*ROWS, *completions(1, 50), completions(1)[0]]).report
    assert report.ok and report.training.usable == 10
    counts = {(dropped.check, dropped.code): dropped.rows for dropped in report.training.dropped}
    assert {reason: rows for reason, rows in counts.items() if rows} == {
        ("duplicates", "duplicate"): 1,
        ("greetings", "greeting"): 3,
    }
    assert counts["length", "over_length"] == 0  # a reason that a check declares is there without rows, too
    written = report.model_dump(mode="json")["training"]
    assert written["dropped"][-1] == {
        "check": "greetings",
        "code": "greeting",
        "rows": 3,
        "words": "only greet",
        "lines": [10, 11, 12],
    }
    assert (written["duplicates"], written["duplicate_lines"], written["over_length"]) == (1, [14], 0)
    assert written["warning_counts"] == {"greeting": 3, "duplicate": 1}


def test_too_few_rows_left_says_so_in_its_words(run: Examine) -> None:
    failure = run([*ROWS, completions(1)[0]]).report.failure
    assert failure is not None and failure.code == "invalid_n_examples"
    assert "(of its 13 rows, 1 are exact duplicates, 3 only greet)" in failure.message


def test_a_check_may_warn_and_drop_nothing(run: Examine) -> None:
    report = run([*completions(10), {"prompt": "Why", "completion": "why?"}]).report
    assert report.ok and report.training.usable == 11
    assert report.training.warning_counts == {"question": 1}


def test_a_row_is_never_dropped_without_words(run: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Greetings, "drops", {})
    with pytest.raises(LookupError, match="the check 'greetings' drops a row as 'greeting'"):
        run(ROWS)


def test_every_check_has_a_name_of_its_own() -> None:
    names = [check.name for check in REGISTRY if isinstance(check, type)]
    assert len(set(names)) == len(REGISTRY)
