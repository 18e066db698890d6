"""Where a row comes from that ingest has made of another file: its `metadata` names the row of that file."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from services.validate.domain.report import Report
from services.validate.reader import Source
from shared.errors import InputError

SOURCE_ROW = "source_row"


def traced(error: InputError, report: Report, training: Source, validation: Source | None) -> InputError:
    """The same error, with the row of the user's own file that it is about."""
    of_validation = error.param == "validation_file" and report.validation is not None and validation is not None
    file, source = (report.validation, validation) if of_validation else (report.training, training)
    assert file is not None and source is not None
    line = next((problem.line for problem in file.problems if problem.severity == "error" and problem.line), None)
    row = source_row(source.path, line) if line else None
    if row is None:
        return error
    return InputError(error.code, f"{error.message} Line {line} was made of row {row} of {source.name}.", error.param)


def source_row(path: Path, line: int) -> str | None:
    """What the row on a line (from 1) says of its origin; None: nothing."""
    with path.open("rb") as file:
        raw = next(itertools.islice(file, line - 1, None), b"")
    try:
        found = json.loads(raw)["metadata"][SOURCE_ROW]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if isinstance(found, str) else None
