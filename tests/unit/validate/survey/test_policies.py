"""What happens to rows with private data, near-duplicates and refusals, by the policy of the job."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.validate.survey.conftest import Checked, chat, varied

Check = Callable[..., Checked]
MAIL = chat("My mail is jane.doe@mail.example.org, what now", "We wrote to jane.doe@mail.example.org today")
KEY = chat("The key is AKIA9QWERTZ7UIOPASDF in my file", "Renew it at once and look at the logs")
REFUSAL = chat("How do I return the blue lamp", "I'm sorry, but I can't help with that request.")


def near(row: dict[str, Any]) -> dict[str, Any]:
    """The same with a word more in question and answer."""
    asked, told = (message["content"] for message in row["messages"])
    return chat(f"please {asked}", f"{told} thanks")


@pytest.mark.parametrize(
    ("row", "setting", "code"), [(MAIL, "personal_data", "personal_data"), (KEY, "secrets", "secrets")]
)
def test_private_data_is_reported_replaced_dropped_or_refused(
    checked: Check, row: Any, setting: str, code: str
) -> None:
    rows = [*varied(30), row]
    secret = "jane.doe@mail.example.org" if row is MAIL else "AKIA9QWERTZ7UIOPASDF"
    reported = checked(rows)
    assert reported.lines(setting) == [31] and row in reported.rows
    replaced = checked(rows, checks={setting: "redact"})
    assert replaced.lines(setting) == [31]
    assert len(replaced.rows) == 31 and secret not in json.dumps(replaced.rows)
    assert ("[EMAIL]" if row is MAIL else "[KEY]") in json.dumps(replaced.rows)
    dropped = checked(rows, checks={setting: "drop"})
    assert len(dropped.rows) == 30 and dropped.report.training.usable == 30
    assert [each.rows for each in dropped.report.training.dropped if each.code == setting] == [1]
    failed = checked(rows, checks={setting: "fail"})
    assert failed.report.failure and "Line 31, messages[0].content" in failed.report.failure.message
    for each in (reported, replaced, dropped, failed):
        assert secret not in each.report.model_dump_json()


def test_rows_without_private_data_are_written_byte_for_byte(checked: Check) -> None:
    lines = [json.dumps(row, indent=None, separators=(" , ", " : ")).encode() for row in varied(30)]
    data = b"\xef\xbb\xbf" + b"\r\n".join([lines[0], b"", *lines[1:], json.dumps(MAIL).encode()])
    report = checked(data, checks={"personal_data": "redact"})
    assert report.report.training.rows == 31 and report.report.training.blank_lines == 1
    assert sorted(map(json.dumps, report.rows)) == sorted(
        json.dumps(json.loads(line))
        for line in [*lines, json.dumps(MAIL).replace("jane.doe@mail.example.org", "[EMAIL]")]
    )


def test_a_row_that_readers_disagree_about_is_refused_and_not_mended(checked: Check) -> None:
    twice = b'{"messages": [], "messages": [{"role": "user", "content": "a@b.org"}]}\n'
    data = b"".join(json.dumps(row).encode() + b"\n" for row in varied(12)) + twice
    report = checked(data, checks={"personal_data": "redact"}).report
    assert not report.ok and report.training.error_counts == {"duplicate_key": 1}


def test_near_duplicates_are_reported_dropped_or_refused(checked: Check) -> None:
    rows = varied(30)
    rows = [*rows, near(rows[3]), near(rows[4])]
    reported = checked(rows)
    assert reported.lines("near_duplicate") == [31, 32] and len(reported.rows) == 32
    assert "line 4" in next(each.message for each in reported.report.training.problems if each.line == 31)
    dropped = checked(rows, checks={"near_duplicates": "drop"})
    assert len(dropped.rows) == 30 and rows[3] in dropped.rows and near(rows[3]) not in dropped.rows
    assert not checked(rows, checks={"near_duplicates": "fail"}).report.ok


def test_of_near_duplicates_the_first_that_can_be_used_is_kept(checked: Check) -> None:
    rows = varied(30)
    rows[3] = chat(*(message["content"] + " I am jane@mail.example.org" for message in rows[3]["messages"]))
    dropped = checked([*rows, near(varied(30)[3])], checks={"near_duplicates": "drop", "personal_data": "drop"})
    assert len(dropped.rows) == 30 and near(varied(30)[3]) in dropped.rows


@pytest.mark.parametrize("seed", range(5))
def test_near_duplicates_are_in_one_split(checked: Check, seed: int) -> None:
    rows = varied(60)
    pairs = [(row, near(row)) for row in rows]
    result = checked([each for pair in pairs for each in pair], seed=seed, splits={"test": 0.2, "validation": 0.2})
    assert all(len(rows) > 10 for rows in result.splits.values())
    for one, other in pairs:
        assert {name for name, rows in result.splits.items() if one in rows or other in rows} in (
            {"train"},
            {"validation"},
            {"test"},
        )


def test_rows_to_validate_on_that_are_nearly_trained_on_are_leaks(checked: Check) -> None:
    rows = varied(30)
    more = [
        *(chat(each["messages"][1]["content"], each["messages"][0]["content"]) for each in rows[:12]),
        near(rows[7]),
    ]
    reported = checked(rows, more)
    assert reported.report.validation
    assert [each.line for each in reported.report.validation.problems if each.code == "leak"] == [13]
    assert reported.report.validation.facts and reported.report.validation.facts.leaks.rows == 1
    assert len(checked(rows, more, checks={"leaks": "drop"}).splits["validation"]) == 12
    failed = checked(rows, more, checks={"leaks": "fail"}).report.failure
    assert failed and "line 8 of the training file" in failed.message


def test_refusals_are_reported_or_dropped(checked: Check) -> None:
    rows = [
        *varied(30),
        REFUSAL,
        chat("Wie gebe ich die Lampe zurück", "Es tut mir leid, aber ich kann dabei nicht helfen."),
    ]
    assert checked(rows).lines("refusal") == [31, 32]
    assert len(checked(rows, checks={"refusals": "drop"}).rows) == 30


def test_a_template_with_other_values_is_no_near_duplicate(checked: Check) -> None:
    form = (
        "Sort the following message of a customer into one of our five topics and answer with one word only, please: "
    )
    rows = [
        chat(form + " ".join(text.split()[:8]), "billing")
        for text in [row["messages"][0]["content"] for row in varied(100)]
    ]
    assert checked(rows).lines("near_duplicate") == []
