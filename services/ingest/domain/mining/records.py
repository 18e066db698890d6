"""One row of any file: its columns, also those inside of nested objects, and its values as text."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from services.ingest.domain.mining.left_out import LeftOut
from shared.errors import InputError

Record = Mapping[str, Any]
Getter = Callable[[Record], Any]

MOST_COLUMNS = 10_000
DEPTH = 4
"""Of nested objects whose fields are columns."""
SHOWN_COLUMNS = 30


@lru_cache(maxsize=4096)  # the same few words come in every row
def key_of(name: str) -> str:
    """A name without case and separators: `Customer Message` and `customer_message` are the same."""
    return "".join(char for char in unicodedata.normalize("NFKC", name).casefold() if char.isalnum())


def columns_of(records: Iterable[Record]) -> list[str]:
    """The columns of rows in the order in which they come up. Fields of nested objects are named with dots.

    Raises:
        InputError: there are too many.
    """
    found: dict[str, None] = {}
    for record in records:
        for name in _names(record, "", DEPTH):
            found.setdefault(name)
            if len(found) > MOST_COLUMNS:
                raise InputError(
                    "invalid_training_file",
                    f"The file has more than {MOST_COLUMNS:,} columns; leave out those that nobody needs.",
                    "training_file",
                )
    return list(found)


def _names(record: Record, prefix: str, depth: int) -> Iterator[str]:
    for name, value in record.items():
        yield prefix + name
        if isinstance(value, dict) and depth > 1:
            yield from _names(value, f"{prefix}{name}.", depth - 1)


def getter(column: str) -> Getter:
    """Reads a column of a row; None if the row does not have it."""
    if "." not in column:
        return lambda record: record.get(column)
    parts = column.split(".")

    def nested(record: Record) -> Any:
        if column in record:
            return record[column]
        value: Any = record
        for part in parts:
            if not isinstance(value, dict):
                return None
            value = value.get(part)
        return value

    return nested


def find(wanted: str, columns: Iterable[str]) -> str | None:
    """The column of this name, whatever its case and separators, or the only one whose last word it is; None: there is
    none. In a header of two rows, `Score` may be below a cell that belongs to its neighbours."""
    columns = list(columns)
    if wanted in columns:
        return wanted
    key = key_of(wanted)
    same = next((name for name in columns if key_of(name) == key), None)
    ends = [name for name in columns if key_of(name.rpartition(" ")[2]) == key]
    return same or (ends[0] if len(ends) == 1 else None)


def require(wanted: str, columns: list[str], param: str) -> str:
    """The column of this name.

    Raises:
        InputError: there is none. It names those that there are.
    """
    found = find(wanted, columns)
    if found is not None:
        return found
    close = get_close_matches(key_of(wanted), [key_of(name) for name in columns], n=1, cutoff=0.6)
    meant = next((name for name in columns if close and key_of(name) == close[0]), None)
    hint = f" Did you mean {meant!r}?" if meant else ""
    raise InputError(
        "unknown_column", f"{param}: there is no column {wanted!r}.{hint} The file has {listed(columns)}.", param
    )


def listed(columns: list[str]) -> str:
    """Columns for a message."""
    shown = ", ".join(name if len(name) <= 60 else f"{name[:59]}…" for name in columns[:SHOWN_COLUMNS])
    more = f" and {len(columns) - SHOWN_COLUMNS:,} more" if len(columns) > SHOWN_COLUMNS else ""
    return f"the columns {shown}{more}" if columns else "no columns"


def text_of(value: Any) -> str:
    """A value as it is said in a conversation: numbers as they are written, objects as JSON, nothing as an empty
    text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dict | list):
        try:
            return json.dumps(value, ensure_ascii=False)
        except RecursionError:
            raise LeftOut("broken", "it is nested too deeply") from None
    return str(value)
