"""Excel: the first sheet whose header is understood. Merged cells have their value in the first of them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.ingest.domain.mining.left_out import LeftOut
from services.ingest.domain.mining.records import Record
from services.ingest.sources.limits import SHEET_BYTES, Limits, refused
from services.ingest.sources.readers.table import HEADER_ROWS, Header, Row, find_header, record_of, sample_of
from shared.errors import InputError
from shared.events import Source

MOST_SHEETS = 50
BATCH_ROWS = 2000


class Excel:
    """A sheet of a workbook (.xlsx)."""

    unit = "row"

    def __init__(self, path: Path, source: Source, limits: Limits) -> None:
        _check_archive(path)
        import fastexcel  # noqa: PLC0415  # with polars, a tenth of a second that other files need not pay

        self.share = 0.0
        try:
            self._book = fastexcel.read_excel(path)
        except Exception as error:  # the library has many kinds, none of which a user can tell apart
            raise _damaged(error) from None
        self._sheet, header = self._choose(source)
        self.columns, self.form, self._header_rows = header.columns, header.form, header.rows
        others = len(self._book.sheet_names) - 1
        self.words = f"the sheet {self._sheet!r} of an Excel file"
        self.notes = [*header.notes, *([f"{others} other sheets are not read"] if others else [])]
        self._frame: Any = None
        self.sample: list[Record] = sample_of(self)

    def rows(self) -> Iterator[Row]:
        if self._frame is None:
            self._frame = self._load(self._sheet)
        group = self.form.group_by
        last: str | None = None
        height = max(self._frame.height, 1)
        for start in range(self._header_rows, self._frame.height, BATCH_ROWS):
            self.share = start / height
            for number, cells in enumerate(self._frame.slice(start, BATCH_ROWS).iter_rows(), start=start + 1):
                if not any(cells):
                    continue
                try:
                    record = dict(record_of(self.columns, cells))
                except LeftOut as left:
                    yield number, left
                    continue
                if group is not None:  # a merged cell stands for all rows beside it
                    last = record[group] = record.get(group) or last
                yield number, record

    def _choose(self, source: Source) -> tuple[str, Header]:
        names = self._book.sheet_names
        if source.sheet is not None:
            if source.sheet not in names:
                raise refused(
                    f"source.sheet: there is no sheet {source.sheet!r}; there are {', '.join(names[:MOST_SHEETS])}",
                    "source.sheet",
                )
            names = [source.sheet]
        problem: InputError | None = None
        for name in names[:MOST_SHEETS]:
            head = self._load(name, HEADER_ROWS * 2)
            if head.height == 0:
                continue
            try:
                return name, find_header(head.rows(), source)
            except InputError as error:
                problem = problem or refused(f"Sheet {name!r}: {error.message}", error.param)
        raise problem or refused("The Excel file has no rows.")

    def _load(self, name: str, rows: int | None = None) -> Any:
        try:
            sheet = self._book.load_sheet(name, header_row=None, skip_rows=0, n_rows=rows, dtypes="string")
            return sheet.to_polars()
        except Exception as error:
            raise _damaged(error) from None


def _check_archive(path: Path) -> None:
    """A workbook is a zip archive, and is read as a whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise _damaged(error) from None
    if not any(file.filename == "xl/workbook.xml" for file in files):
        raise refused("The file is a zip archive and no Excel workbook; unpack it, and drop the files that are in it.")
    if sum(file.file_size for file in files) > SHEET_BYTES:
        raise refused(f"The Excel file unpacks to more than {SHEET_BYTES // 2**20} MiB; save the sheet as CSV.")


def _damaged(error: Exception) -> InputError:
    said = (str(error).splitlines() or [""])[0][:200]
    return refused(f"The Excel file cannot be read: {said}. Save it again as .xlsx, or as CSV.")
