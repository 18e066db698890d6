"""JSON: one object on each line, a list of objects, or a document that holds such a list somewhere."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.ingest.domain.mining.forms import form_of
from services.ingest.domain.mining.left_out import LeftOut
from services.ingest.domain.mining.records import Record, columns_of
from services.ingest.domain.mining.turns import is_messages
from services.ingest.sources.limits import CELL_BYTES, Limits, refused
from services.ingest.sources.readers.encodings import Encoding, encoding_of
from services.ingest.sources.readers.scanner import Scanner
from services.ingest.sources.readers.streams import Unpacked, lines, opened, pieces
from services.ingest.sources.readers.table import Row, sample_of
from shared.events import Source


class _Json:
    """What the readers of JSON have in common."""

    unit: str
    form_words: str

    def __init__(self, path: Path, source: Source, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self._unpacked: Unpacked | None = None
        self.encoding: Encoding = encoding_of(path, limits, source)
        self.notes: list[str] = []
        self.words = f"{self.form_words} ({self.encoding.words})"
        self.sample: list[Record] = sample_of(self)  # columns and form follow from it
        if not self.sample:
            raise refused("The file has no JSON objects that could be rows.")
        self.columns = columns_of(self.sample)
        self.form = form_of(self.columns, self.sample, source)

    @property
    def share(self) -> float:
        return self._unpacked.share if self._unpacked else 0.0

    def lines(self) -> Iterator[str]:
        self._unpacked, buffer = opened(self._path, self._limits)
        with buffer:
            yield from lines(buffer, self.encoding.name)

    def rows(self) -> Iterator[Row]:
        raise NotImplementedError


class JsonLines(_Json):
    """One object on each line."""

    unit = "line"
    form_words = "JSON lines"

    def rows(self) -> Iterator[Row]:
        for number, line in enumerate(self.lines(), start=1):
            text = line.removeprefix("\ufeff") if number == 1 else line
            if text.isspace():
                continue
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                yield number, LeftOut("broken")
                continue
            yield number, value if isinstance(value, dict) else LeftOut("broken", "it is no object")


class JsonDocument(_Json):
    """A list of objects, several objects one after the other, or a document with a list of objects in it."""

    unit = "item"
    form_words = "a JSON document"

    def __init__(self, path: Path, source: Source, limits: Limits) -> None:
        self._records = tuple(source.records.split(".")) if source.records else None
        super().__init__(path, source, limits)

    def rows(self) -> Iterator[Row]:
        scanner = Scanner(self._chunks())
        first = scanner.peek()
        if first == "[":
            if self._records:
                raise refused("source.records: the document is a list itself; leave it out", "source.records")
            items = scanner.items()
        elif first == "{":
            items = self._in_object(scanner)
        else:
            raise refused("The JSON document is no list and no object.")
        for number, value in enumerate(items, start=1):
            yield number, value if isinstance(value, dict) else LeftOut("broken", "it is no object")

    def _chunks(self) -> Iterator[str]:
        self._unpacked, buffer = opened(self._path, self._limits)
        with buffer:
            yield from pieces(buffer, self.encoding.name)

    def _in_object(self, scanner: Scanner) -> Iterator[Any]:
        """The rows of a document that begins with an object. A small one is read as a whole; of a large one only the
        list that is looked for."""
        whole = scanner.value_within(CELL_BYTES)
        if whole is None:
            return scanner.find_list(self._records)
        if scanner.peek():  # objects one after the other
            return itertools.chain(whole, _following(scanner))
        return iter(_rows_in(whole[0], self._records))


def _following(scanner: Scanner) -> Iterator[Any]:
    while scanner.peek():
        yield scanner.value()


def _rows_in(document: dict[str, Any], path: tuple[str, ...] | None) -> list[Any]:
    """The rows in a document: the list that `path` names, else the longest list of objects, else objects by name."""
    if path is not None:
        found: Any = document
        for part in path:
            found = found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, list):
            names = ", ".join(list(document)[:30])
            raise refused(
                f"source.records: there is no list {'.'.join(path)!r}; the document has {names}", "source.records"
            )
        return found
    lists = [each for each in _lists(document, 3) if not is_messages(each)]
    if lists:
        return max(lists, key=len)
    if len(document) > 1 and all(isinstance(value, dict) for value in document.values()):
        return list(document.values())  # objects by their ids
    return [document]


def _lists(value: dict[str, Any], depth: int) -> Iterator[list[Any]]:
    for each in value.values():
        if isinstance(each, list) and each and isinstance(each[0], dict):
            yield each
        elif isinstance(each, dict) and depth > 1:
            yield from _lists(each, depth - 1)
