"""Different answers to one and the same prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.validate.checks.base import Check, Context, Tally
from services.validate.columns import Answers
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding
from services.validate.domain.report import Contradictions as Counted
from services.validate.plain import PlainRows

CONTRADICTION = "contradictory_answers"
NAMED = 3  # of so many different answers the lines are named


class Contradictions(Check):
    """Reports prompts that are answered in different ways, and never drops a row: only the user knows which answer is
    right, and where the task is to write freely, several are.

    The prompt of a chat row is all that comes before the last answer that is trained on, with the tools; earlier
    answers of a conversation are part of it and are not compared by themselves, because conversations begin alike. In
    preference rows it is the prompt with both answers: two rows contradict each other if they prefer opposite ones.
    Answers to an empty prompt have nothing in common and are not compared. Case, white space at the ends, thoughts and
    weights make no difference.
    """

    name = "contradictions"
    by_row = False

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._answers = Answers()

    def row(self, row: Row) -> Iterable[Finding]:
        if row.prompt is not None:
            self._answers.add(row.prompt, row.answer, row.line)
        return ()

    def plain(self, rows: PlainRows) -> Iterable[tuple[int, Finding]]:
        self._answers.add_many(rows.prompts, rows.answers, rows.lines)
        return ()

    def file(self, tally: Tally) -> Iterator[Finding]:
        prompts = rows = prompts_of_many = rows_of_many = 0
        answers, self._answers = self._answers, Answers()  # the rows are grouped next, which takes as much memory
        for found in answers.disagreements(NAMED):
            prompts, rows = prompts + 1, rows + found.rows
            if found.answers > 2:
                prompts_of_many, rows_of_many = prompts_of_many + 1, rows_of_many + found.rows
            *some, last = found.lines
            more = f"; {found.answers} different ones in {found.rows} rows" if found.rows > 2 else ""
            text = f"lines {', '.join(map(str, some))} and {last} answer the same prompt differently{more}"
            remedy = "keep one answer, unless several are right"
            yield Finding(CONTRADICTION, "", text, remedy, "warning")
        tally.contradictions = Counted(
            prompts=prompts, rows=rows, prompts_of_many=prompts_of_many, rows_of_many=rows_of_many
        )
