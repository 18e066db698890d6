"""The checks that every row goes through, one per file, and their registry.

Every check is called for each row, in the order of the registry, and again after the last row. A row that has an error,
or that a check drops, goes to no further check. Checks are as pure as the domain: rows in, findings out.

To add a check, write its file and add its class to `REGISTRY`; nothing else has to change:

    class Greetings(Check):
        name = "greetings"
        drops: ClassVar = {"greeting": "only greet"}

        def row(self, row: Row) -> Iterator[Finding]:
            if row.format == "completion" and row.value["completion"].strip() == "Hello!":
                yield Finding("greeting", "completion", "only greets", "write an answer", "warning", drops=True)

The report then names the check and counts its rows (`training.dropped`), every row is a warning with its line, and
"too few examples" says "3 only greet". `row` yields the findings of one row, `file` those of the whole file.
`needs_tokens = True` puts a check behind the tokenizer, so that it finds the row's token counts.
"""

from __future__ import annotations

from collections.abc import Callable

from services.validate.checks.about import About
from services.validate.checks.base import Check, Context
from services.validate.checks.chat import Chat
from services.validate.checks.completion import Completion
from services.validate.checks.contradictions import Contradictions
from services.validate.checks.duplicates import Duplicates
from services.validate.checks.enough import Enough
from services.validate.checks.known.flaws import Flaws
from services.validate.checks.known.near_duplicates import NearDuplicates
from services.validate.checks.known.private import PersonalData, Secrets
from services.validate.checks.known.refusals import Refusals
from services.validate.checks.length import Length
from services.validate.checks.preference import Preference
from services.validate.checks.unwanted import Unwanted

REGISTRY: tuple[Callable[[Context], Check], ...] = (
    Chat,
    Completion,
    Preference,
    Unwanted,
    Duplicates,
    Contradictions,
    PersonalData,
    Secrets,
    Refusals,
    Flaws,
    Length,
    NearDuplicates,
    About,
    Enough,
)


def checks_for(context: Context) -> list[Check]:
    """New checks for one file. A check may remember rows, so it is not used for two files."""
    return [make(context) for make in REGISTRY]


__all__ = ["REGISTRY", "Check", "Context", "checks_for"]
