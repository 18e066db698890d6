"""JSON: one object on each line, a list of objects, or a document that holds such a list somewhere."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.ingest.domain.mining.documents import Rows, rows_at, rows_in
from services.ingest.domain.mining.forms import form_of
from services.ingest.domain.mining.left_out import LeftOut
from services.ingest.domain.mining.records import Record, columns_of
from services.ingest.sources.limits import CELL_BYTES, Limits, refused
from services.ingest.sources.readers.encodings import Encoding, encoding_of
from services.ingest.sources.readers.scanner import Scanner
from services.ingest.sources.readers.streams import Unpacked, lines, opened, pieces
from services.ingest.sources.readers.table import Row, sample_of
from shared.errors import InputError
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
            raise refused(
                "The file has no JSON objects that could be rows. Write one object on each line, or all of them as "
                "one list: [{…}, {…}]."
            )
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
        self._source = source
        self._found: Rows | None = None
        try:
            super().__init__(path, source, limits)
        except InputError as error:
            if self._found is None or self._found.place is None or source.records:
                raise
            raise InputError(error.code, f"{error.message} {self._where(self._found)}", error.param) from None
        if self._found and self._found.place:
            self.words += f", the list {self._found.place} in it"
            if self._found.rest:
                self.notes.append(self._where(self._found).removesuffix("."))

    @staticmethod
    def _where(found: Rows) -> str:
        taken = f"The rows are those of the list {found.place}"
        if not found.rest:
            return f"{taken} in the document."
        return (
            f"{taken}; the document has other lists: {found.rest}. `source: {{records: NAME}}` names the one to take."
        )

    def rows(self) -> Iterator[Row]:
        scanner = Scanner(self._chunks())
        first = scanner.peek()
        if first == "[":
            if self._source.records:
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
        records = self._source.records
        whole = scanner.value_within(CELL_BYTES)
        if whole is None:
            return scanner.find_list(tuple(records.split(".")) if records else None)
        if scanner.peek():  # objects one after the other
            return itertools.chain(whole, _following(scanner))
        self._found = rows_at(whole[0], records) if records else rows_in(whole[0], self._source)
        return iter(self._found.items)


def _following(scanner: Scanner) -> Iterator[Any]:
    while scanner.peek():
        yield scanner.value()
