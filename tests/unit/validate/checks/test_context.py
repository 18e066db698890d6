"""The memory that a check needs before its first row."""

from __future__ import annotations

from services.validate.checks import Context
from services.validate.domain.survey.facts import Facts
from services.validate.domain.survey.surveyed import Surveyed
from shared.events import JobSpec


def test_rows_without_a_text_are_given_no_room() -> None:
    # a line of `{}` has two bytes, so a file may hold very many of them; a table for these would need terabytes
    surveyed = Surveyed(Facts(rows=10**12, answers={"text": 3}))
    assert not Context("training", JobSpec(), surveyed=surveyed).holds(bytes(16))
