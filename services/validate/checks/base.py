"""The base class of checks, and what a check is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from services.validate.columns import Digests
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding
from services.validate.domain.formats import Format
from services.validate.domain.report import Contradictions, Dropped, FileRole
from services.validate.domain.survey.surveyed import Surveyed
from services.validate.plain import PlainRows
from shared.events import JobSpec


@dataclass
class Context:
    """What checks know about the job and the file.

    The duplicates check fills `seen` (the digests of all examples, each with its line) and `groups`. The context of a
    validation file has that of the training file in `training`.
    """

    role: FileRole
    spec: JobSpec
    max_length: int | None = None
    prompt_tokens: Callable[[Row], int] | None = None
    """Tokens of a row before the first that is trained on; None without a base."""
    training: Context | None = None
    surveyed: Surveyed | None = None
    """What is known of the file before its rows are checked; None: nothing."""
    format: Format | None = None
    """The format that the file must be in; None: that of its first row."""
    seen: Digests = field(init=False)
    groups: Digests = field(default_factory=Digests, init=False)

    def __post_init__(self) -> None:
        # rows without a text, of which a file may have hundreds of millions, are no examples
        self.seen = Digests(sum(self.surveyed.facts.answers.values()) if self.surveyed else 0)

    def holds(self, group: bytes) -> bool:
        """Whether the file has an example of this group. `groups` holds only groups that are not in `seen`."""
        return group in self.seen or group in self.groups


class Check:
    """One question about the rows of a file. The base class asks nothing."""

    name: ClassVar[str]
    """What the report calls the check."""
    drops: ClassVar[Mapping[str, str]] = {}
    """Why the check drops rows: the code of the finding -> the words that follow the number of such rows, for example
    `{"duplicate": "are exact duplicates"}`."""
    needs_tokens: ClassVar[bool] = False
    """The check reads `row.sequences`, so it is called after the tokenizer."""
    by_row: ClassVar[bool] = True
    """False: plain rows (`Row.plain`), which most rows are, are not given to `row`, but many of them to `plain`. Only
    the first checks of the registry may say so."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def row(self, row: Row) -> Iterable[Finding]:
        """What is wrong with a row."""
        return ()

    def plain(self, rows: PlainRows) -> Iterable[tuple[int, Finding]]:
        """What is wrong with some plain rows, each finding with the place of its row in `rows`. It must say what `row`
        would say of each, in their order."""
        return ()

    def file(self, tally: Tally) -> Iterable[Finding]:
        """What is wrong with the file, after its last row."""
        return ()


@dataclass
class _Drops:
    """The rows that one check dropped for one reason."""

    words: str
    rows: int = 0
    lines: list[int] = field(default_factory=list)


class Tally:
    """Counts the rows of one file: all rows, usable rows, and rows that checks dropped. `max_lines`: how many line
    numbers are kept for each reason; every row is counted.
    """

    def __init__(self, checks: Iterable[Check], max_lines: int) -> None:
        self.rows = 0
        self.usable = 0
        self.contradictions: Contradictions | None = None
        self._max_lines = max_lines
        self._drops = {(check.name, code): _Drops(words) for check in checks for code, words in check.drops.items()}

    def drop(self, check: Check, code: str, line: int) -> None:
        """Count a row that `check` drops.

        Raises:
            LookupError: `check.drops` has no words for this code.
        """
        found = self._drops.get((check.name, code))
        if found is None:
            raise LookupError(f"the check {check.name!r} drops a row as {code!r}; add words for it to its `drops`")
        found.rows += 1
        if len(found.lines) < self._max_lines:
            found.lines.append(line)

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """Every reason that a check declares, in the order of the registry; `rows` is 0 if no row was dropped for
        it."""
        return tuple(
            Dropped(check=check, code=code, rows=drops.rows, words=drops.words, lines=tuple(drops.lines))
            for (check, code), drops in self._drops.items()
        )
