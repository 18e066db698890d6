"""How quick the survey is, part by part, against named rivals in the same run.

    python -m benchmarks.datasets.survey                  # 4,000 rows of 750 bytes
    python -m benchmarks.datasets.survey --rows 20000 --processes

Rates are rows for each second of one core (CPU time, so that a busy machine changes little). Each part reads the rows
from their bytes and does all that the survey does for it. `--processes` adds the wall time of the whole survey on all
cores. The rivals: datasketch for near-duplicates, detect-secrets for secrets, lingua for languages.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.datasets.planted import Clean, contents
from services.validate.reader import Source
from services.validate.scan import ScanControl
from services.validate.survey.features import HALF, features, words_of
from services.validate.survey.part import Options, look
from services.validate.survey.survey import survey
from shared.events import JobSpec
from shared.settings import ValidationSettings

FEWER = 10
"""The rivals get so many times fewer rows."""

Rows = list[tuple[str, str]]
NOTHING = {"personal": False, "secrets": False, "near": False, "about": False}
PARTS = {
    "personal data": {"personal": True},
    "secrets": {"secrets": True},
    "near-duplicates: signatures": {"near": True},
    "languages, task, refusals, lengths": {"about": True},
    "all of them": {"personal": True, "secrets": True, "near": True, "about": True},
}


def by_datasketch(rows: Rows) -> None:
    """The signatures and bands of the same features, in datasketch's index."""
    from datasketch import MinHash, MinHashLSH  # noqa: PLC0415

    index = MinHashLSH(threshold=0.7, num_perm=2 * HALF)
    for number, (question, answer) in enumerate(rows):
        made = MinHash(num_perm=2 * HALF)
        made.update_batch([each.encode() for each in {*features(words_of(question)), *features(words_of(answer))}])
        index.query(made)
        index.insert(number, made)


def by_detect_secrets(rows: Rows) -> None:
    """All plugins of detect-secrets with their settings."""
    from detect_secrets.core.scan import scan_line  # noqa: PLC0415
    from detect_secrets.settings import default_settings  # noqa: PLC0415

    logging.disable(logging.CRITICAL)
    with default_settings():
        for row in rows:
            for text in row:
                for line in text.split("\n"):
                    list(scan_line(line))


def by_lingua(rows: Rows) -> None:
    """The language of question and answer, by the quick model, of their first 120 characters."""
    from lingua import LanguageDetectorBuilder  # noqa: PLC0415

    detector = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()
    for row in rows:
        for text in row:
            detector.detect_language_of(text[:120])


RIVALS: dict[str, tuple[str, Callable[[Rows], None]]] = {
    "near-duplicates: signatures": ("datasketch", by_datasketch),
    "secrets": ("detect-secrets", by_detect_secrets),
    "languages, task, refusals, lengths": ("lingua", by_lingua),
}


def rate(rows: int, call: Callable[[], object]) -> float:
    """Rows for each second of CPU time."""
    begin = time.process_time()
    call()
    return rows / (time.process_time() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--processes", action="store_true")
    given = parser.parse_args()
    clean = Clean(seed=1)
    rows = [clean.row() for _ in range(given.rows)]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    print(f"{given.rows:,} rows of {len(data) / given.rows:.0f} bytes; rows/s of one core")
    few = [contents(row) for row in rows[: given.rows // FEWER]]
    look(data[: len(data) // 20], Options("", 2**24))  # imports and tables
    for name, wanted in PARTS.items():
        ours = rate(given.rows, lambda wanted=wanted: look(data, Options("", 2**24, **(NOTHING | wanted))))  # type: ignore[misc]
        line = f"{name:<36}{ours:>10,.0f}"
        if name in RIVALS:
            rival, call = RIVALS[name]
            theirs = rate(len(few), lambda call=call: call(few))  # type: ignore[misc]
            line += f"   {rival} {theirs:,.0f}: {ours / theirs:.1f} times"
        print(line, flush=True)
    if given.processes:
        with tempfile.TemporaryDirectory(prefix="tunestream-survey-") as folder:
            path = Path(folder) / "rows.jsonl"
            path.write_bytes(data)
            begin = time.perf_counter()
            control = ScanControl()
            survey(
                Source(path, path.name),
                None,
                spec=JobSpec(),
                limits=ValidationSettings(),
                control=control,
                folder=Path(folder),
            )
            taken = time.perf_counter() - begin
            print(f"the whole survey, all cores, wall time {given.rows / taken:>10,.0f}")


if __name__ == "__main__":
    main()
