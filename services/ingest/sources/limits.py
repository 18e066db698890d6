"""How much of a file is read, so that no file takes all memory or runs for ever."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import InputError

CELL_BYTES = 16 * 2**20
"""Of one cell, one line and one example: what the validator takes for a row."""
SAMPLE_ROWS = 200
"""The first rows, by which it is decided how all are read."""
SAMPLE_BYTES = 2**20
SHEET_BYTES = 512 * 2**20
"""Of a spreadsheet, unpacked: it is read as a whole."""
CODE, PARAM = "invalid_training_file", "training_file"


@dataclass(frozen=True)
class Limits:
    """What an operator may change."""

    unpacked_bytes: int = 64 * 2**30
    """Of a file after unpacking."""


def refused(message: str, param: str | None = PARAM) -> InputError:
    """The error of a file that cannot become a dataset."""
    return InputError(CODE, message, param)
