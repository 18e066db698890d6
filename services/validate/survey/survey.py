"""The survey of the files of a job."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import compress, islice
from operator import ne
from pathlib import Path
from typing import IO

import numpy as np

from services.validate.columns import keep_large_arrays_mapped
from services.validate.domain.report import FileRole
from services.validate.domain.survey.facts import Lines
from services.validate.domain.survey.said import said
from services.validate.domain.survey.surveyed import Surveyed
from services.validate.reader import Reader, Source
from services.validate.scan import ScanControl
from services.validate.survey.chunks import SIZE, chunks
from services.validate.survey.collected import Collected
from services.validate.survey.look import decoded
from services.validate.survey.near import Clusters, members
from services.validate.survey.part import Options
from services.validate.survey.pool import looked_at
from services.validate.survey.texts.hashed import words_in
from services.validate.survey.texts.signatures import features
from shared.errors import Cancelled
from shared.events import JobSpec
from shared.settings import ValidationSettings

SAMPLE = 2000
"""Rows that figures about words are made of, and features whose share is known."""
_PROBES, _PROBE_BYTES = 64, 2**16
COMMON = 0.05
"""Features of a larger share of the rows are the form of the dataset: instructions, greetings, the words of a
template. Rows that have nothing else in common are no near-duplicates."""
_LEAST_COMMON = 8


@dataclass(frozen=True)
class Survey:
    """What was found, and the files to check: with placeholders, where the job redacts. `training` is None for a file
    that is not JSONL at all."""

    training_file: Source
    validation_file: Source | None
    training: Surveyed | None = None
    validation: Surveyed | None = None


def survey(
    training: Source,
    validation: Source | None,
    *,
    spec: JobSpec,
    limits: ValidationSettings,
    control: ScanControl,
    folder: Path,
) -> Survey:
    """Look at every row of the files of a job, once. `folder`: where files with placeholders are written.

    Memory: 60 MB for each process, of which a small file has none; 24 bytes for each row that has near-duplicates; of a
    dataset of labels 4 bytes for each row. On disk: 210 bytes for each row.

    Raises:
        Cancelled: `control.stop` was set.
        OSError: a file cannot be read, or the disk is full.
    """
    files: list[tuple[Source, FileRole]] = [(training, "training")]
    if validation is not None:
        files.append((validation, "validation"))
    if any(Reader(source.path, limits.max_line_bytes).sniff() for source, _ in files):
        return Survey(training, validation)
    common = _common(training.path)
    found: list[Collected] = []
    sources: list[Source] = []
    keep_large_arrays_mapped()
    with Clusters() as clusters:
        for source, role in files:
            options = _options(source.path, spec, limits, common)
            clean = folder / f"redacted-{role}.jsonl" if options.redact_personal or options.redact_secrets else None
            found.append(_surveyed(source, role, options, clusters, control, clean))
            sources.append(Source(clean, source.name) if clean and found[-1].redacted else source)
        parents = clusters.joined()
    rows, firsts = members(parents)
    surveyed = [each.surveyed(spec.checks) for each in found]
    _cluster(surveyed, found, rows, firsts)
    return Survey(sources[0], sources[1] if len(sources) > 1 else None, *surveyed)


def _options(path: Path, spec: JobSpec, limits: ValidationSettings, common: bytes) -> Options:
    size = max(path.stat().st_size, 1)
    rows = max(size / _line_bytes(path), 1.0)
    return Options(
        path=str(path),
        max_line_bytes=limits.max_line_bytes,
        redact_personal=spec.checks.personal_data == "redact",
        redact_secrets=spec.checks.secrets == "redact",
        sample=min(2**32, int(2**32 * SAMPLE / rows)),
        common=common,
    )


def _surveyed(
    source: Source, role: FileRole, options: Options, clusters: Clusters, control: ScanControl, clean: Path | None
) -> Collected:
    size = source.path.stat().st_size
    found = Collected()
    with clean.open("wb") if clean else nullcontext() as out, source.path.open("rb") as original:
        pieces = chunks(source.path, options.max_line_bytes)
        with closing(looked_at(pieces, options, size, control.stop)) as parts:
            for piece, part in parts:
                clusters.add(part.bands, part.signatures)
                found.add(part)
                if out is not None:
                    _write(out, original, piece.start, piece.end, part.redacted)
                control.advance(role, found.rows, piece.end / size)
    if control.stop.is_set():
        raise Cancelled
    return found


def _write(out: IO[bytes], original: IO[bytes], start: int, end: int, redacted: bytes | None) -> None:
    if redacted is not None:
        out.write(redacted)
        return
    original.seek(start)
    while start < end:
        data = original.read(min(SIZE, end - start))
        start += len(data)
        out.write(data)


def _cluster(surveyed: list[Surveyed], found: list[Collected], rows: array[int], firsts: array[int]) -> None:
    """Give every row that has near-duplicates the line of the first of its cluster. Rows of the validation file are
    counted after those of the training file."""
    trained = len(found[0].near_lines)
    for row, first in zip(rows, firsts, strict=True):
        of_training = row < trained
        side = surveyed[0 if of_training else 1]
        lines = found[0 if of_training else 1].near_lines
        line = lines[row if of_training else row - trained]
        if of_training or first >= trained:
            side.members.append(line)
            side.clusters.append(lines[first if of_training else first - trained])
        else:
            side.leaked.append(line)
            side.leaked_from.append(found[0].near_lines[first])
    for side in surveyed:
        # all rows of a file may be near-duplicates, so no list is made of their lines
        later = array("I", compress(side.members, map(ne, side.members, side.clusters)))
        side.facts = side.facts.model_copy(
            update={
                "near_duplicates": Lines.of(later),
                "leaks": Lines.of(side.leaked),
            }
        )


# --- the form of the dataset ----------------------------------------------------------------------------------------


def _probes(path: Path) -> Iterator[bytes]:
    """Whole lines from places spread over the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for number in range(_PROBES):
            at = size * number // _PROBES
            file.seek(at)
            lines = file.read(_PROBE_BYTES if size > _PROBES * _PROBE_BYTES else size // _PROBES + 1).split(b"\n")
            yield from lines[1 if at else 0 : -1]


def _line_bytes(path: Path) -> float:
    """The mean length of a line that is not blank."""
    lengths = [len(line) for line in _probes(path) if line.strip()]
    return sum(lengths) / len(lengths) + 1 if lengths else 1.0


def _common(path: Path) -> bytes:
    """The hashes of the features that many rows share, sorted."""
    told = (said(value) for line in _probes(path) if (value := decoded(line)) is not None)
    rows = list(islice((texts for texts in told if texts is not None), SAMPLE))
    found = features(words_in([text for row in rows for text in (row.prompt, row.answer)]))
    ends = np.cumsum(found.counts)[1::2].tolist()
    of_rows = [np.unique(found.hashes[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]
    known, counts = np.unique(np.concatenate([found.hashes[:0], *of_rows]), return_counts=True)
    return known[counts > max(_LEAST_COMMON, COMMON * len(rows))].tobytes()
