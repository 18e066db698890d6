"""Parquet, a few thousand rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from services.ingest.domain.mining.forms import form_of
from services.ingest.domain.mining.records import MOST_COLUMNS, Record, columns_of
from services.ingest.sources.limits import Limits, refused
from services.ingest.sources.readers.table import Row, sample_of
from shared.events import Source

BATCH_ROWS = 2000


class Parquet:
    """A table with types, whose cells may be lists and objects."""

    unit = "row"

    def __init__(self, path: Path, source: Source, limits: Limits) -> None:
        import polars as pl  # noqa: PLC0415  # a tenth of a second that other files need not pay

        self.share = 0.0
        self.notes: list[str] = []
        self.words = "a Parquet file"
        self._polars = pl
        try:
            self._frame = pl.scan_parquet(path)
            names = self._frame.collect_schema().names()
            self._rows = int(self._frame.select(pl.len()).collect().item())
        except pl.exceptions.PolarsError as error:
            raise self._damaged(error) from None
        if len(names) > MOST_COLUMNS:
            raise refused(f"The table has {len(names):,} columns; more than {MOST_COLUMNS:,} are not read.")
        self.sample: list[Record] = sample_of(self)
        self.columns = columns_of([dict.fromkeys(names), *self.sample])
        self.form = form_of(self.columns, self.sample, source)

    def rows(self) -> Iterator[Row]:
        number = 0
        try:
            for batch in self._frame.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True, engine="streaming"):
                for row in batch.iter_rows(named=True):
                    number += 1
                    yield number, {name: _plain(value) for name, value in row.items()}
                self.share = number / max(self._rows, 1)
        except self._polars.exceptions.PolarsError as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> Exception:
        return refused(f"The Parquet file cannot be read: {str(error).splitlines()[0][:200]}.")


def _plain(value: Any) -> Any:
    """A cell as JSON knows it."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict):
        # a struct has every field of any row; those without a value are not in this one
        return {name: _plain(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat(*(" ",) if isinstance(value, datetime) else ())
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return None  # bytes and objects are no text
