"""From a file as people have it to a dataset with one example on each line, in flat memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from services.ingest.domain.mining.examples import Examples
from services.ingest.domain.mining.filters import Filter
from services.ingest.domain.mining.left_out import LeftOut
from services.ingest.domain.mining.records import Record, listed
from services.ingest.domain.mining.times import Order
from services.ingest.sources.grouping import Groups
from services.ingest.sources.limits import CELL_BYTES, SAMPLE_BYTES, Limits, refused
from services.ingest.sources.readers.delimited import Delimited
from services.ingest.sources.readers.excel import Excel
from services.ingest.sources.readers.json_rows import JsonDocument, JsonLines
from services.ingest.sources.readers.kinds import kind_of
from services.ingest.sources.readers.parquet import Parquet
from services.ingest.sources.readers.streams import head_of
from services.ingest.sources.readers.table import Reading
from services.ingest.sources.report import SHOWN_COLUMNS, SHOWN_EXAMPLES, Cuts, Losses, MiningReport
from shared.errors import InputError
from shared.events import Source

SOURCE_ROW = "source_row"
"""The field of an example's `metadata` that names its row in the file."""
PROGRESS_ROWS = 1000

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

OnProgress = Callable[[int, float], None]
"""Called with the number of rows so far, and the share of the file that is read."""


def read(path: Path, name: str, source: Source, limits: Limits) -> Reading:
    """Open a file and understand its columns.

    Raises:
        InputError: it cannot be read, or nothing says which column is what.
    """
    match kind_of(head_of(path, limits, SAMPLE_BYTES), name, source):
        case "parquet":
            return Parquet(path, source, limits)
        case "excel":
            return Excel(path, source, limits)
        case "jsonl":
            return JsonLines(path, source, limits)
        case "json":
            return JsonDocument(path, source, limits)
        case _:
            return Delimited(path, name, source, limits)


def mine(
    path: Path,
    out: Path,
    *,
    name: str | None = None,
    source: Source | None = None,
    limits: Limits | None = None,
    on_progress: OnProgress = lambda rows, share: None,
) -> MiningReport:
    """Write the examples of the file `path` to `out`. `name` is the user's name for it.

    The same file with the same settings gives the same bytes.

    Raises:
        InputError: it cannot be read, or no row becomes an example. The message says what to change.
    """
    source, limits = source or Source(), limits or Limits()
    reading = read(path, name or path.name, source, limits)
    miner = _Miner(reading, source, on_progress)
    with out.open("wb") as file:
        if isinstance(reading, JsonLines) and reading.form.name == "native" and source == Source():
            miner.copy(reading, file)
        elif reading.form.grouped:
            with (
                tempfile.TemporaryDirectory(prefix="tunestream-mine-", dir=out.parent) as folder,
                Groups(Path(folder)) as groups,
            ):
                miner.group(groups, file)
        else:
            miner.each(file)
    report = miner.report(name or path.name)
    if not report.examples:
        raise miner.nothing(report)
    return report


class _Miner:
    """Makes the examples of one file, and counts what is left out."""

    def __init__(self, reading: Reading, source: Source, on_progress: OnProgress) -> None:
        self._reading = reading
        self._source = source
        self._on_progress = on_progress
        self._examples = Examples(reading.form, source)
        self._filter = Filter(source.filter, reading.columns) if source.filter else None
        self._losses = Losses()
        self._cuts = Cuts()
        self._notes = list(reading.notes)
        self._rows = self._made = 0
        self._first: list[dict[str, Any]] = []
        self._try_filter()

    def _try_filter(self) -> None:
        """A filter that fits none of the first rows would leave out all: that is told at once."""
        if self._filter is None:
            return
        losses, fits = Losses(), 0
        for number, record in enumerate(self._reading.sample, start=1):
            try:
                self._filter.keeps(record)
                fits += 1
            except LeftOut as left:
                losses.add(number, left)
        if not fits and (detail := losses.detail("unfit")):
            raise InputError(
                "invalid_filter",
                f"source.filter: {self._filter.text!r} fits none of the first rows: {detail}. Compare the column "
                "with a value of its own kind.",
                "source.filter",
            )

    # --- three ways through a file

    def each(self, out: BinaryIO) -> None:
        """Every row is an example for itself."""
        for number, record in self._kept():
            try:
                data = self._encoded(self._examples.example(record), [number], self._examples.about(record))
            except LeftOut as left:
                self._losses.add(number, left)
                continue
            out.write(data)

    def group(self, groups: Groups, out: BinaryIO) -> None:
        """Rows are parts of conversations."""
        order = Order(map(self._examples.order, self._reading.sample))
        for number, record in self._readable():
            row: dict[str, Any] = {"turns": [], "meets": True}
            try:
                row |= {"about": self._examples.about(record), **self._judged(record)}
                if "problem" not in row:
                    row["turns"] = self._examples.turns(record)
            except LeftOut as left:
                row["problem"] = left.reason, left.detail
            try:
                groups.add(self._examples.group(record), order.key(self._examples.order(record)), number, row)
            except UnicodeEncodeError:
                self._losses.add(number, LeftOut("not_text"))
            except LeftOut as left:
                self._losses.add(number, left)
        self._note_order(order)
        for numbers, said in groups.conversations():
            try:
                data = self._conversation(numbers, said)
            except LeftOut as left:
                self._losses.add(min(numbers), left, len(numbers))
                continue
            groups.put(min(numbers), data)
        for _, data in groups.made():
            self._show(data)
            out.write(data)

    def copy(self, reading: JsonLines, out: BinaryIO) -> None:
        """The rows are in a training format: they stay as they are, and so do their line numbers."""
        for line in reading.lines():
            self._count()
            data = line.encode("utf-8", "surrogateescape")
            out.write(data)
            if not line.isspace():
                self._made += 1
                self._show(data)

    # --- steps

    def _readable(self) -> Iterator[tuple[int, Record]]:
        for number, record in self._reading.rows():
            self._count()
            if isinstance(record, LeftOut):
                self._losses.add(number, record)
            else:
                yield number, record

    def _kept(self) -> Iterator[tuple[int, Record]]:
        for number, record in self._readable():
            try:
                if self._filter is not None and not self._filter.keeps(record):
                    raise LeftOut("filter")
            except LeftOut as left:
                self._losses.add(number, left)
                continue
            yield number, record

    def _judged(self, record: Record) -> dict[str, Any]:
        """What the filter says of a part of a conversation. A row where the filter's columns are empty has no say."""
        if self._filter is None:
            return {"meets": True}
        if self._filter.silent(record):
            return {"meets": False}
        return {"meets": True} if self._filter.keeps(record) else {"meets": False, "problem": ("filter", "")}

    def _conversation(self, numbers: list[int], rows: list[Any] | None) -> bytes:
        """The example of a conversation. It is taken as a whole or not at all: with a hole it would make no sense."""
        if rows is None:
            raise LeftOut("too_large", f"a conversation of {len(numbers):,} rows or more")
        if problem := next((row["problem"] for row in rows if "problem" in row), None):
            raise LeftOut(*problem)
        if not any(row["meets"] for row in rows):
            raise LeftOut("filter")
        about = {name: text for row in reversed(rows) for name, text in row["about"].items()}
        return self._encoded(
            self._examples.conversation(row["turns"] for row in rows), sorted(numbers), about, keep=False
        )

    def _count(self) -> None:
        self._rows += 1
        if self._rows % PROGRESS_ROWS == 0:
            self._on_progress(self._rows, self._reading.share)

    def _encoded(self, made: dict[str, Any], numbers: list[int], about: dict[str, str], *, keep: bool = True) -> bytes:
        """An example as a line of the dataset. Its metadata says where it comes from.

        Raises:
            LeftOut: it cannot be written, or is too large.
        """
        if self._reading.form.name != "native":
            rows = ", ".join(map(str, numbers[:20])) + (", …" if len(numbers) > 20 else "")
            made = {**made, "metadata": {SOURCE_ROW: rows, **about}}
        try:
            data = _JSON.encode(made).encode() + b"\n"
        except UnicodeEncodeError:
            raise LeftOut("not_text") from None
        except RecursionError:
            raise LeftOut("broken", "it is nested too deeply") from None
        except ValueError:
            raise LeftOut("broken", "it has a number that is not finite") from None
        if b"\\u0000" in data:
            raise LeftOut("not_text", "a NUL character")
        if len(data) > CELL_BYTES:
            raise LeftOut("too_large", f"{len(data) / 2**20:.0f} MiB")
        self._made += 1
        self._cuts.add(numbers[0], self._examples.cut)
        if keep:
            self._show(data)
        return data

    def _show(self, data: bytes) -> None:
        if len(self._first) < SHOWN_EXAMPLES and len(data) < 2**16:
            self._first.append(json.loads(data))

    def _note_order(self, order: Order) -> None:
        column = self._reading.form.order_by
        if order.guessed:
            self._notes.append(f"in {column} the month is taken to come before the day")
        if order.unread:
            self._notes.append(f"{order.unread:,} rows have a {column} that is no time and no number; they come last")

    # --- what is said of it

    def report(self, name: str) -> MiningReport:
        form, reading = self._reading.form, self._reading
        return MiningReport(
            name=name,
            words=reading.words,
            unit=reading.unit,
            form=form.name,
            columns=tuple(reading.columns[:SHOWN_COLUMNS]),
            mapping=dict(form.columns.items()),
            group_by=form.group_by if form.grouped else None,
            order_by=form.order_by if form.grouped else None,
            filter=self._source.filter,
            rows=self._rows,
            examples=self._made,
            left_out=self._losses.report(),
            cut=self._cuts.report(),
            notes=tuple(self._notes),
            first=tuple(self._first),
        )

    def nothing(self, report: MiningReport) -> InputError:
        """The error of a file of which no row becomes an example."""
        remedy = "Name other columns, or another filter, in the settings beside the file (`source:`)"
        return refused(
            f"No row becomes an example. {' '.join(report.sentences())} {remedy}; `tunestream mine FILE` shows what "
            f"comes of it. The file has {listed(self._reading.columns)}.",
            "source",
        )
