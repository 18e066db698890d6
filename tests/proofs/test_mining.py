"""Large files become datasets in flat memory: a gzip of JSON lines, and a table of scattered conversations.

`make prove-mining` does it with 2 GB each, which takes about ten minutes and 15 GB of disk. `TUNESTREAM_MINING_GB` is
their size, `TMPDIR` where they are.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from services.ingest.sources.child import Answer, Request
from services.ingest.sources.limits import Limits
from services.ingest.sources.report import MiningReport
from shared.events import Source

pytestmark = pytest.mark.timeout(7200)

SIZE = int(float(os.environ.get("TUNESTREAM_MINING_GB", "2")) * 1e9)
MOST_MEMORY = 400 * 2**20
"""Of the process that reads the file, whatever its size."""

_random = random.Random(14)
WORDS = ["".join(_random.choices("abcdefghijklmnoprstuvwz", k=_random.randint(2, 10))) for _ in range(20_000)]
TEXTS = [" ".join(_random.choices(WORDS, k=60)) for _ in range(4_000)]


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


@dataclass
class Measured:
    report: MiningReport
    seconds: float
    computing: float
    """Seconds of a core."""
    peak: int


def mined(path: Path, out: Path, source: Source | None = None) -> Measured:
    """Read a file in the process that ingest starts, and measure it."""
    request = Request(
        parent=os.getpid(),
        path=str(path),
        out=str(out),
        name=path.name,
        source=source,
        limits=Limits(),
        memory_bytes=2**31,
    )
    began = time.monotonic()
    command = [sys.executable, "-m", "services.ingest.sources"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    process.stdin.write(request.model_dump_json().encode() + b"\n")
    process.stdin.close()
    last = Answer.model_validate_json(process.stdout.readlines()[-1])
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    assert last.report is not None, last
    computing = usage.ru_utime + usage.ru_stime
    return Measured(last.report, time.monotonic() - began, computing, usage.ru_maxrss * 1024)


def written(path: Path, write: Callable[[Path], int]) -> int:
    size = write(path)
    say(f"\n{path.name}: {size / 1e9:.2f} GB of text, {path.stat().st_size / 1e9:.2f} GB on disk")
    return size


def show(measured: Measured, size: int) -> None:
    report = measured.report
    say(
        f"  {report.rows:,} rows, {report.examples:,} examples, {measured.seconds:.0f} s, "
        f"of a core {size / 1e6 / measured.computing:.0f} MB/s and {report.rows / measured.computing:,.0f} rows/s, "
        f"peak {measured.peak / 2**20:.0f} MiB"
    )


def sharegpt(path: Path) -> int:
    size = 0
    with gzip.open(path, "wb", compresslevel=1) as file:
        while size < SIZE:
            turns = [{"from": who, "value": _random.choice(TEXTS)} for who in ("human", "gpt", "human", "gpt")]
            size += file.write(json.dumps({"id": str(size), "conversations": turns}).encode() + b"\n")
    return size


def tickets(path: Path) -> int:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ticket_id", "created_at", "customer_message", "agent_response", "satisfaction_score"])
        conversations = SIZE // 2600
        while file.tell() < SIZE:
            for _ in range(1000):
                said = [_random.choice(TEXTS), _random.choice(TEXTS)]
                at = f"2024-{_random.randint(1, 12):02}-{_random.randint(1, 28):02} 10:00"
                table.writerow([_random.randrange(conversations), at, *said, _random.choice((1, 4, 5, 5, 5, 5, 5, 5))])
        return file.tell()


def test_a_gzip_of_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "dump.jsonl.gz"
    size = written(path, sharegpt)
    found = mined(path, tmp_path / "rows.jsonl")
    show(found, size)
    assert found.report.examples == found.report.rows
    assert found.peak < MOST_MEMORY


def test_a_table_of_scattered_conversations(tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    size = written(path, tickets)
    found = mined(path, tmp_path / "rows.jsonl", Source(filter="satisfaction_score >= 2"))
    show(found, size)
    assert found.peak < MOST_MEMORY
    began = time.monotonic()
    expected = conversations_in_memory(path)
    say(f"  polars, all in memory: {expected:,} conversations, {time.monotonic() - began:.0f} s")
    assert found.report.examples == expected


def conversations_in_memory(path: Path) -> int:
    """How many tickets meet the filter in all their rows."""
    frame = pl.scan_csv(path).group_by("ticket_id").agg(pl.col("satisfaction_score").min())
    return int(frame.filter(pl.col("satisfaction_score") >= 2).select(pl.len()).collect().item())
