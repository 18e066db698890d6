"""The advice on a checked file: reads its usable rows once more, or an even share of them."""

from __future__ import annotations

import json
from pathlib import Path

from services.validate.checks import Context
from services.validate.domain.advice import Advice, Sample, advise, facts_of, sample_of
from services.validate.domain.report import FileReport
from services.validate.reader import Reader, Source
from services.validate.scan import Scan, ScanControl, scan
from shared.errors import Cancelled
from shared.events import JobSpec
from shared.settings import ValidationSettings

IN_A_REPORT, MOST_ROWS = 2_000, 20_000
"""So many rows are looked at for a report, which must not take longer than the checks; and where a person asks."""
MOST_BYTES = 2**23
"""And no more than this: rows may be long."""


def advice_on(source: Source, scanned: Scan, control: ScanControl) -> Advice | None:
    """What the rows alone say; None: none can be used."""
    rows = samples(source, scanned, control, IN_A_REPORT)
    return advise(facts_of(rows, of=scanned.report.usable)) if rows else None


def samples_of(path: Path, *, spec: JobSpec, limits: ValidationSettings) -> tuple[list[Sample], FileReport]:
    """The usable rows of a file, and what was found in it. Rows with errors are left out, also where they would fail
    the job.

    Raises:
        OSError: the file cannot be read.
    """
    source, control = Source(path, path.name), ScanControl()
    scanned = scan(source, Context("training", spec, None, None), tokenizer=None, limits=limits, control=control)
    return samples(source, scanned, control, MOST_ROWS), scanned.report


def samples(source: Source, scanned: Scan, control: ScanControl, most: int) -> list[Sample]:
    """At most `most` of the usable rows, evenly spread."""
    every = max(-(-scanned.report.usable // most), -(-scanned.report.size // MOST_BYTES))
    reader = Reader(source.path, scanned.report.size)  # the scan has limited their length
    found: list[Sample] = []
    seen = 0
    for (_, raw), usable in zip(reader.rows(), scanned.usable, strict=False):  # a scan may end before its file
        if control.stop.is_set():
            raise Cancelled
        if not usable:
            continue
        seen += 1
        if (seen - 1) % every:
            continue
        assert isinstance(raw, bytes)
        if (sample := sample_of(json.loads(raw))) is not None:
            found.append(sample)
    return found
