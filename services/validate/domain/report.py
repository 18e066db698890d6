"""What validation found: the document `report.json`, and the error of a job whose file cannot be used."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from services.validate.domain.advice import Advice
from services.validate.domain.findings import Finding, Problem
from services.validate.domain.formats import METHOD_OF, Format
from services.validate.domain.statistics import Estimate, Tokens
from services.validate.domain.survey.facts import Facts
from shared.base import BaseProfile
from shared.errors import InputError
from shared.events import FrozenModel, Method, Served

FileRole = Literal["training", "validation"]
MIN_EXAMPLES = 10  # OpenAI's limit; with fewer, neither training nor testing means anything


class Failure(FrozenModel):
    """Why the job cannot go on, in the words of the OpenAI API's job error."""

    code: str
    message: str
    param: str | None = None


class Dropped(FrozenModel):
    """The rows that one check dropped for one reason, in the check's own words."""

    check: str
    code: str
    """The code of the warnings about these rows."""
    rows: int
    words: str
    """The words that follow the number of rows: `are exact duplicates`."""
    lines: tuple[int, ...] = ()
    """The lines of the first such rows."""

    def __str__(self) -> str:
        """`3 are exact duplicates`"""
        return f"{self.rows} {self.words}"


class Contradictions(FrozenModel):
    """Prompts of one file that are answered in different ways."""

    prompts: int
    rows: int
    """Rows with such a prompt."""
    prompts_of_many: int
    """Prompts with three or more different answers."""
    rows_of_many: int
    """Rows with such a prompt."""


class FileReport(FrozenModel):
    """One file. `usable` rows are those that go into the splits; every other row is a problem, dropped or blank."""

    name: str
    size: int
    lines: int
    blank_lines: int
    rows: int
    usable: int
    format: Format | None
    duplicates: int
    duplicate_lines: tuple[int, ...]
    """The first lines that repeat an earlier example."""
    over_length: int
    dropped: tuple[Dropped, ...] = ()
    """Every reason for which a check may drop rows, including those for which none was dropped."""
    contradictions: Contradictions | None = None
    """None: they were not counted, because the file has errors."""
    tokens: Tokens | None
    token_sizes: tuple[tuple[int, int], ...] = ()
    """The histogram of tokens per row as pairs of (at least so many, rows), two for each doubling."""
    facts: Facts | None = None
    """What the file is about; None: it is not JSONL at all."""
    errors: int
    warnings: int
    error_counts: dict[str, int]
    warning_counts: dict[str, int]
    problems: tuple[Problem, ...]
    """The first errors, then the first warnings."""

    def with_warning(self, warning: Problem, count: int = 1) -> FileReport:
        """The same with `count` more warnings of one kind, of which the first is given."""
        return self.model_copy(
            update={
                "warnings": self.warnings + count,
                "warning_counts": self.warning_counts | {warning.code: count},
                "problems": (*self.problems, warning),
            }
        )


class ServedCheck(Served):
    """What the render server said of the trained turns."""

    first: Problem | None = None
    """The first difference."""
    first_in: FileRole = "training"
    """The file that has it."""


NO_TEST = Finding(
    "no_test_split",
    "",
    "all rows have a prompt or an answer in common, directly or through other rows, so none can be kept for a test, "
    "and the model will not be promoted by itself",
    "give the rows different prompts, or set gate.promote to always",
    "warning",
)


class SplitSize(FrozenModel):
    """What a split holds. `tokens` is 0 where no base was known."""

    examples: int
    tokens: int


class Report(FrozenModel):
    """The whole `report.json`."""

    ok: bool
    """A job could be trained on these files."""
    failure: Failure | None = None
    base: str | None
    """None: no base was known, so nothing was tokenized."""
    profile: BaseProfile | None = None
    """What is known of the base."""
    format: Format | None
    method: Method | None
    max_length: int | None
    over_length: Literal["drop", "truncate", "fail"]
    seed: int
    training: FileReport
    validation: FileReport | None = None
    splits: dict[str, SplitSize] = Field(default_factory=dict)
    estimate: Estimate | None = None
    advice: Advice | None = None
    """Whether to fine-tune at all, by the rows alone; `tunestream advise` measures more."""
    served: ServedCheck | None = None
    """None: the rows were not looked at as the server sees them, because something else is wrong with them, or no base
    was known."""

    def with_served(self, served: ServedCheck, policy: Literal["fail", "warn"]) -> Report:
        """The same with what the render server said. A difference is an error of the job, or a warning."""
        first = served.first
        if first is None:
            return self.model_copy(update={"served": served})
        if policy == "fail":
            failed = Failure(
                code=first.code,
                message=f"What is trained is not what is served. {first} (compared with vLLM {served.server})",
                param=f"{served.first_in}_file",
            )
            return self.model_copy(update={"served": served, "ok": False, "failure": failed})
        warning = first.model_copy(update={"severity": "warning"})
        place = served.first_in
        file = self.training if place == "training" or self.validation is None else self.validation
        return self.model_copy(update={"served": served, place: file.with_warning(warning, served.differences)})


def failure(file: FileReport, role: FileRole) -> Failure | None:
    """The job's error for a file with problems: the first problem, and how many more there are."""
    first = next((problem for problem in file.problems if problem.severity == "error"), None)
    if first is None:
        return None
    if first.code == TOO_FEW:
        return Failure(code="invalid_n_examples", message=f"{first.message}; {first.remedy}", param=f"{role}_file")
    text = f"The job failed due to an invalid {role} file. {_example(file, first)}{first}"
    if more := file.errors - 1:
        text += f" (and {more} more problem{'s' if more > 1 else ''}; see the report)"
    return Failure(code=f"invalid_{role}_file", message=text, param=f"{role}_file")


def _example(file: FileReport, problem: Problem) -> str:
    """`Example 100, message 2. `: the place of a problem as users count, from 1 and without blank lines. Empty if the
    problem is one of the whole file, or nobody knows how many blank lines come before it."""
    if problem.line is None:
        return ""
    blank = [each.line for each in file.problems if each.code == BLANK and each.line is not None]
    before = sum(line < problem.line for line in blank)
    if len(blank) < file.blank_lines and before == len(blank):
        return ""
    message = _MESSAGE.search(problem.field)
    return f"Example {problem.line - before}{f', message {int(message[1]) + 1}' if message else ''}. "


BLANK = "blank_line"
_MESSAGE = re.compile(r"\bmessages\[(\d+)\]")
TOO_FEW = "too_few_examples"


def wrong_method(file: FileReport, method: Method | None) -> Failure | None:
    """The job's error for a format that the method cannot train on, in OpenAI's words."""
    if method is None or file.format is None or METHOD_OF[file.format] == method:
        return None
    needed = METHOD_OF[file.format]
    message = (
        f"Input file {file.name} is in the fine-tune-{file.format} format, but the specified fine-tuning job is not "
        f"using '{needed}' as the training method (provided method={method}); set the method to {needed}, or give a "
        f"file of another format"
    )
    return Failure(code="invalid_training_file", message=message, param="training_file")


def error_of(report: Report, where: str) -> InputError | None:
    """The exception that ends the job, None when all is well; `where` is the place of the whole report."""
    if report.failure is None:
        return None
    message = report.failure.message.replace("see the report", f"see {where}")
    return InputError(report.failure.code, message, report.failure.param)
