"""An answer that the file marks as a bad one is not trained on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.validate.conftest import Examine, chats, completions


@pytest.mark.parametrize(
    "mark", [{"label": False}, {"accepted": False}, {"feedback": "thumbs_down"}, {"rating": " Negative "}]
)
@pytest.mark.parametrize("rows", [chats(12), completions(12)], ids=["chat", "completion"])
def test_the_row_is_left_out_and_named(mark: dict[str, Any], rows: list[dict[str, Any]], run: Examine) -> None:
    report = run([{**rows[0], **mark}, *rows[1:]]).report
    assert report.ok
    (dropped,) = (each for each in report.training.dropped if each.code == "unwanted_answer")
    assert (dropped.rows, dropped.lines) == (1, (1,))
    (warning,) = (each for each in report.training.problems if each.code == "unwanted_answer")
    assert warning.field in mark and "preferred_completion" in warning.remedy


@pytest.mark.parametrize(
    "mark", [{"label": True}, {"label": 0}, {"rating": "good"}, {"rating": 1}, {"label": "bad day"}]
)
def test_other_marks_leave_nothing_out(mark: dict[str, Any], run: Examine) -> None:
    rows = chats(12)
    report = run([{**rows[0], **mark}, *rows[1:]]).report
    assert not [each for each in report.training.problems if each.code == "unwanted_answer"]
