"""CSV and TSV: cells with quotes and line breaks, whatever stands between them."""

from __future__ import annotations

import csv
import itertools
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from services.ingest.domain.mining.left_out import LeftOut
from services.ingest.domain.mining.records import Record
from services.ingest.sources.limits import CELL_BYTES, SAMPLE_BYTES, Limits, refused
from services.ingest.sources.readers.encodings import encoding_of
from services.ingest.sources.readers.streams import Unpacked, lines, opened
from services.ingest.sources.readers.table import HEADER_ROWS, Row, find_header, record_of, sample_of
from shared.events import Source

DELIMITERS = ",;\t|"
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


class Delimited:
    """A table of text."""

    unit = "line"

    def __init__(self, path: Path, name: str, source: Source, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self._unpacked: Unpacked | None = None
        self._encoding = encoding_of(path, limits, source)
        first = list(itertools.islice(self._lines(), 2000))
        self._skipped = 0
        declared = first[0].strip() if first else ""
        if declared.lower().startswith("sep=") and len(declared) == 5:  # as Excel writes it
            self._skipped, first = 1, first[1:]
        else:
            declared = ""
        ending = posixpath.basename(name).lower().removesuffix(".gz")
        self._delimiter = source.delimiter or declared[4:] or _delimiter(first, ending)
        head = [cells for _, cells in itertools.islice(_records(first, self._delimiter), HEADER_ROWS)]
        header = find_header(head, source)
        self.columns, self.form, self._header_rows = header.columns, header.form, header.rows
        between = _NAMES.get(self._delimiter, repr(self._delimiter))
        self.words = f"a table of text ({self._encoding.words}; {between} between the cells)"
        self.notes = header.notes
        if self._encoding.guessed:
            self.notes.append("if letters look wrong, name the encoding: `source: {encoding: …}`")
        self.sample: list[Record] = sample_of(self)

    @property
    def share(self) -> float:
        return self._unpacked.share if self._unpacked else 0.0

    def rows(self) -> Iterator[Row]:
        found = _records(itertools.islice(self._lines(), self._skipped, None), self._delimiter, self._skipped)
        for line, cells in itertools.islice(found, self._header_rows, None):
            if isinstance(cells, LeftOut):
                yield line, cells
            elif any(cells):
                try:
                    yield line, record_of(self.columns, cells)
                except LeftOut as left:
                    yield line, left

    def _lines(self) -> Iterator[str]:
        self._unpacked, buffer = opened(self._path, self._limits)
        with buffer:
            yield from lines(buffer, self._encoding.name)


def _records(text: Iterable[str], delimiter: str, before: int = 0) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, each with the number of its first line.

    Raises:
        InputError: a cell is too large.
    """
    csv.field_size_limit(CELL_BYTES)
    quotes = 0

    def counted() -> Iterator[str]:
        nonlocal quotes
        for line in text:
            quotes += line.count('"')
            yield line

    reader = csv.reader(counted(), delimiter=delimiter)
    line = before + 1
    while True:
        quotes = 0
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise refused(
                f"The row that begins in line {line:,} cannot be read ({error}): a cell may have "
                f"{CELL_BYTES // 2**20} MiB; probably a quote is opened there and never closed, or the delimiter is "
                "wrong."
            ) from None
        following = before + reader.line_num + 1
        if quotes % 2 and following - line > 50:
            raise refused(
                f"A quote that is opened in the row of line {line:,} is never closed; close it, or double the "
                "quotes inside of a cell."
            )
        yield line, cells
        line = following


def _delimiter(first: list[str], ending: str) -> str:
    """What stands between the cells: what makes most rows equally long."""
    if ending.endswith(".tsv"):
        return "\t"
    sample = "".join(first)[:SAMPLE_BYTES].splitlines(keepends=True)

    def score(delimiter: str) -> tuple[float, int]:
        try:
            lengths = Counter(len(row) for row in itertools.islice(csv.reader(sample, delimiter=delimiter), 50) if row)
        except csv.Error:
            return 0.0, 0
        wide = {length: count for length, count in lengths.items() if length > 1}
        if not wide:
            return 0.0, 0
        length, count = max(wide.items(), key=lambda item: (item[1], item[0]))
        return count / lengths.total(), length

    return max(DELIMITERS, key=score)
