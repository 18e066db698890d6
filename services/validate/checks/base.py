"""What a check is, and what it may know."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from services.validate.domain.content import Row
from services.validate.domain.findings import Finding
from services.validate.domain.formats import Format
from services.validate.domain.report import Role
from shared.events import JobSpec


@dataclass
class Tally:
    """What happened to the rows of one file."""

    rows: int = 0
    usable: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Code of the finding -> rows left out for it."""


@dataclass
class Context:
    """What checks may know of the job and of the file.

    The duplicates check fills `seen` (digest of an example -> its line) and `groups`; the checks of a validation file
    find those of the training file in `training`.
    """

    role: Role
    spec: JobSpec
    max_length: int | None = None
    prompt_tokens: Callable[[Row], int] | None = None
    """Tokens of a row before the first that is trained on; None without a base."""
    seen: dict[bytes, int] = field(default_factory=dict)
    groups: set[bytes] = field(default_factory=set)
    training: Context | None = None
    format: Format | None = None
    """The format that the file must be in; None: its first row tells."""

    def holds(self, group: bytes) -> bool:
        """Whether the file has an example of this group. `groups` keeps only those that are no digest in `seen`."""
        return group in self.seen or group in self.groups


class Check:
    """One question about the rows of a file. The base class asks nothing."""

    needs_tokens: bool = False

    def __init__(self, context: Context) -> None:
        self.context = context

    def row(self, row: Row) -> Iterable[Finding]:
        """What is wrong with a row."""
        return ()

    def file(self, tally: Tally) -> Iterable[Finding]:
        """What is wrong with the file, now that all of its rows were seen."""
        return ()
