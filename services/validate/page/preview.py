"""A few rows as the trainer sees them: decoded tokens, those that are trained on marked."""

from __future__ import annotations

from collections.abc import Iterator

from services.validate.check import Examined, usable_rows
from services.validate.domain.content import Row
from services.validate.domain.survey.surveyed import Surveyed, holds
from services.validate.reader import Source
from services.validate.scan import ScanControl
from services.validate.survey.look import decoded
from services.validate.tokenizer import Tokenizer
from shared.events import FrozenModel

ROWS = 5
CHARACTERS = 1200
"""Of one run of text; the middle of a longer one is left out."""


class Run(FrozenModel):
    """Text of neighbouring tokens that are all trained on, or all masked."""

    text: str
    trained: bool


class PreviewRow(FrozenModel):
    """One row. A preference pair has two sequences."""

    line: int
    sequences: tuple[tuple[Run, ...], ...]


def preview(examined: Examined, source: Source, surveyed: Surveyed | None, tokenizer: Tokenizer) -> list[PreviewRow]:
    """The first rows that are trained on. Rows with private data are not shown: the page is not the dataset."""
    assert examined.training is not None and examined.report.format is not None
    found: list[PreviewRow] = []
    for line, raw in usable_rows(source, "training", examined.training, ScanControl()):
        if surveyed and (holds(surveyed.personal, line) or holds(surveyed.secret, line)):
            continue
        if (value := decoded(raw)) is None:
            continue
        sequences = tokenizer.decoded(Row(line, value, examined.report.format))
        found.append(PreviewRow(line=line, sequences=tuple(tuple(_runs(sequence)) for sequence in sequences)))
        if len(found) == ROWS:
            break
    return found


def _runs(sequence: list[tuple[str, bool]]) -> Iterator[Run]:
    for text, trained in sequence:
        if len(text) > CHARACTERS:
            half = CHARACTERS // 2
            text = f"{text[:half]} … ({len(text) - CHARACTERS:,} characters) … {text[-half:]}"  # noqa: PLW2901
        yield Run(text=text, trained=trained)
