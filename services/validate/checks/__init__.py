"""The checks that every row goes through, one per file, and their registry.

A check is asked once per row, in the order of the registry, and once when the whole file was read. A row with an error
is not asked about again, and neither is a row that a check drops. To add a check, write its file and add its class to
`REGISTRY`; `needs_tokens` puts it behind the tokenizer. Checks are as pure as the domain: rows in, findings out.
"""

from __future__ import annotations

from collections.abc import Callable

from services.validate.checks.base import Check, Context
from services.validate.checks.chat import Chat
from services.validate.checks.completion import Completion
from services.validate.checks.duplicates import Duplicates
from services.validate.checks.enough import Enough
from services.validate.checks.length import Length
from services.validate.checks.preference import Preference

REGISTRY: tuple[Callable[[Context], Check], ...] = (Chat, Completion, Preference, Duplicates, Length, Enough)


def checks_for(context: Context) -> list[Check]:
    """Fresh checks for one file; they keep what they have seen."""
    return [make(context) for make in REGISTRY]


__all__ = ["REGISTRY", "Check", "Context", "checks_for"]
