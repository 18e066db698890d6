"""What one piece of a file holds. It is a pure function of the bytes and the options, so any process can call it.

Rows are read in batches that stay in the processor's cache. What numpy finds in many texts at once is asked of a whole
batch (`texts/`), the rest row by row.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from services.validate.domain.survey.said import said
from services.validate.survey.about import About
from services.validate.survey.part import Options, Part
from services.validate.survey.private import Private
from services.validate.survey.texts.hashed import Words, words_in
from services.validate.survey.texts.signatures import BANDS, SIGNATURE, features, own, signatures

MIN_WORDS = 4
"""Rows of fewer words are too short to be nearly the same as others: they are the same, or not."""
BATCH = 2**17
"""Bytes of the rows of a batch, or a little more."""
_LINE = re.compile(rb"[^\r\n][^\n]*")
_BOM = b"\xef\xbb\xbf"


@dataclass
class _Batch:
    """The rows of some lines. `lines`: their numbers within the piece, from 0. `rows`: their places among all rows,
    those that cannot be read included. `places`: where their lines begin and end."""

    lines: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    raws: list[bytes] = field(default_factory=list)
    values: list[dict[str, Any]] = field(default_factory=list)


def look(data: bytes, options: Options, *, first: bool = False) -> Part:
    """Look at whole lines. `first`: the piece is the beginning of its file. It never raises, whatever the bytes."""
    part = Part(lines=data.count(b"\n") + (not data.endswith(b"\n")))
    labels = array("I")
    private, about, near = Private(options), About(options, labels), _Near(options)
    for batch in _batches(data, options, labels, first=first):
        part.rows += len(batch.rows)
        if options.personal or options.secrets:
            private.look(batch.lines, batch.raws, batch.values, batch.places)
        if not options.near and not options.about:
            continue
        told = [(number, texts) for number, value in enumerate(batch.values) if (texts := said(value)) is not None]
        words = words_in([text for _, texts in told for text in (texts.prompt, texts.answer)])
        if options.near:
            near.add([batch.lines[number] for number, _ in told], words)
        if options.about:
            counts, different = words.counts[1::2].tolist(), words.different[1::2].tolist()
            languages = about.languages([texts for _, texts in told], words)
            for (number, texts), language, *of_words in zip(told, languages, counts, different, strict=True):
                about.add(batch.lines[number], batch.rows[number], batch.values[number], texts, language, *of_words)
                about.sample(batch.lines[number], batch.raws[number], texts)
    part.row_labels = labels.tobytes()
    private.fill(part, data)
    about.fill(part)
    near.fill(part)
    return part


def _batches(data: bytes, options: Options, labels: array[int], *, first: bool) -> Iterator[_Batch]:
    """The rows that are JSON objects. `labels` gets an entry for every row."""
    batch, size = _Batch(), 0
    line = at = 0
    for match in _LINE.finditer(data):
        start, end = match.span()
        line += data.count(b"\n", at, start)
        at = start
        raw = match[0].rstrip(b"\r")
        if first and start == 0:
            raw = raw.removeprefix(_BOM)
        if not raw.strip():
            continue
        labels.append(0)
        if len(raw) > options.max_line_bytes or (value := decoded(raw)) is None:
            continue
        batch.lines.append(line)
        batch.rows.append(len(labels) - 1)
        batch.places.append((start, end))
        batch.raws.append(raw)
        batch.values.append(value)
        size += len(raw)
        if size >= BATCH:
            yield batch
            batch, size = _Batch(), 0
    if batch.rows:
        yield batch


def decoded(raw: bytes) -> dict[str, Any] | None:
    """The JSON object of a line, or None. The scan says what is wrong with it."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    return value if isinstance(value, dict) else None


class _Near:
    """The signatures of the rows that are long enough."""

    def __init__(self, options: Options) -> None:
        self._common = options.common
        self._lines = array("I")
        self._bands, self._signatures = list[bytes](), list[bytes]()

    def add(self, lines: list[int], words: Words) -> None:
        """The rows on some lines. `words`: those of each one's prompt and answer."""
        enough = np.flatnonzero(words.counts[::2] + words.counts[1::2] >= MIN_WORDS)
        if not len(enough):
            return
        bands, kept = signatures(own(features(words), self._common))
        assert bands.shape[1] == BANDS and kept.shape[1] == SIGNATURE
        self._lines.extend([lines[number] for number in enough.tolist()])
        self._bands.append(bands[enough].tobytes())
        self._signatures.append(kept[enough].tobytes())

    def fill(self, part: Part) -> None:
        """Write what was found into the answer."""
        part.near_lines = self._lines.tobytes()
        part.bands, part.signatures = b"".join(self._bands), b"".join(self._signatures)
