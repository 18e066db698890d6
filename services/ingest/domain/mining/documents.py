"""Where the rows are in a JSON document that is one object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from services.ingest.domain.mining.forms import form_of
from services.ingest.domain.mining.records import columns_of
from services.ingest.domain.mining.turns import is_messages
from shared.errors import InputError
from shared.events import Source

DEPTH = 3
"""How deep in a document lists are looked for."""
JUDGED_ROWS = 200
SHOWN_LISTS = 30


@dataclass(frozen=True)
class Rows:
    """The rows of a document. `place`: the fields that lead to them, with dots; None: they are the document itself, or
    its values. `others`: lists of objects beside them, with their lengths."""

    items: list[Any]
    place: str | None = None
    others: tuple[tuple[str, int], ...] = ()

    @property
    def rest(self) -> str:
        """The other lists, for people; empty if there are none."""
        return ", ".join(f"{place} ({length:,})" for place, length in self.others[:SHOWN_LISTS])


def rows_in(document: dict[str, Any], source: Source) -> Rows:
    """The rows of a document: the longest list whose objects are understood, or else its values, if all are objects
    (objects by their ids), or else the document, or else its longest list of objects."""
    lists = dict(_lists(document, DEPTH))
    understood = {place: items for place, items in lists.items() if _is_understood(items, source)}
    if not understood and len(document) > 1 and all(isinstance(value, dict) for value in document.values()):
        return Rows(list(document.values()))
    candidates = understood or ({} if _is_understood([document], source) else lists)
    if not candidates:
        return Rows([document])
    place = max(candidates, key=lambda each: len(candidates[each]))
    others = tuple((name, len(items)) for name, items in lists.items() if name != place)
    return Rows(candidates[place], place, others)


def wraps_rows(document: dict[str, Any], source: Source) -> bool:
    """Whether an object is no row itself, but holds a list of them."""
    return rows_in(document, source).place is not None


def rows_at(document: dict[str, Any], place: str) -> Rows:
    """The rows that the settings name.

    Raises:
        InputError: there is no list.
    """
    found: Any = document
    for part in place.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if not isinstance(found, list):
        names = ", ".join(list(document)[:SHOWN_LISTS])
        raise InputError(
            "invalid_training_file",
            f"source.records: there is no list {place!r}; the document has {names}",
            "source.records",
        )
    return Rows(found, place)


def _lists(value: dict[str, Any], depth: int, prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """The lists of objects in a document that are no conversations."""
    for name, each in value.items():
        if isinstance(each, list) and each and isinstance(each[0], dict) and not is_messages(each):
            yield prefix + name, each
        elif isinstance(each, dict) and depth > 1:
            yield from _lists(each, depth - 1, f"{prefix}{name}.")


def _is_understood(rows: list[Any], source: Source) -> bool:
    sample = [row for row in rows[:JUDGED_ROWS] if isinstance(row, dict)]
    try:
        form_of(columns_of(sample), sample, source)
    except InputError:
        return False
    return True
