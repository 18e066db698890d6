"""What to do about a dataset of which no job could be made."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import ConfigError, InputError, StoreRefused, TransientError

ABSENT = "file_not_found"
"""The code of the error for an object that does not exist."""
UNREADABLE = "file_not_readable"
"""The code of the error for an object that exists, but that the store does not give out."""


@dataclass(frozen=True)
class Verdict:
    """Why there is no job. `final`: looking again is of no use until the dataset, its settings or its event change."""

    final: bool
    reason: str
    remedy: str
    field: str | None = None


def verdict(kind: str, error: Exception) -> Verdict:
    """Judge what was raised while a job was made of a drop or an event."""
    again = "nothing, if that is temporary: it is tried again, less and less often"
    if isinstance(error, InputError):
        if kind == "drop" and error.code == ABSENT:
            # it was listed: it was deleted since, and may be put there again
            return Verdict(False, error.message, again, error.param)
        remedy = "correct it, then put the object again" if kind == "drop" else "correct it, then send another event"
        return Verdict(True, error.message, remedy, error.param)
    if isinstance(error, ConfigError):
        return Verdict(False, str(error), "let ingest read and write what it needs; then it is tried again by itself")
    if isinstance(error, TransientError | StoreRefused):
        return Verdict(False, str(error) or type(error).__name__, again)
    return Verdict(False, f"unexpected {type(error).__name__}", "the log of ingest shows where; please report it")
