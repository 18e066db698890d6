"""How quickly and in how much memory datasets are checked.

    python -m benchmarks.validate [--base path/to/base] [--sizes 10 100 500 2000] [--out results.json]

All ways of one group check the same file in turns, and the best of the rounds counts. A way on one core is timed by the
processor's clock and pinned to that core; one on all cores by the clock on the wall. The ratio is to the first way of
the group. Then come a file of newlines, against reading it, and the memory (`memory.png` beside the results).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.validate import memory
from benchmarks.validate.data import write_rows
from benchmarks.validate.ways import Way, ours, ways_of_checks, ways_of_form, ways_of_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--token-rows", type=int, default=20_000, help="rows of the file that is tokenized")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", type=Path, help="a folder; by default the tiny base of the demo")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10, 100, 500, 2000], help="MB of the files for memory")
    parser.add_argument("--newlines", type=int, default=200, help="MB of the file of newlines")
    parser.add_argument("--out", type=Path, help="a file for the results as JSON")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder / "rows.jsonl", options.rows)
        print(f"{'way':58} {'rows/s':>10} {'MB/s':>8} {'x first':>8}")
        for ways in (ways_of_form(), ways_of_checks()):
            results |= compare(ways, rows, options.rows, options.rounds)
        if options.token_rows:
            few = write_rows(folder / "few.jsonl", options.token_rows)
            results |= compare(_tokens(options.base, few), few, options.token_rows, min(3, options.rounds))
        results["newlines"] = newlines(folder / "newlines", options.newlines)
        results["memory"] = memory.as_json(found := memory.peaks(options.sizes, folder))
    for peak in found:
        print(f"{peak.size:8,.0f} MB, {peak.rows:10,} rows: {peak.peak:6,.0f} MB at most, {peak.allowed:6,.0f} allowed")
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
        memory.draw(found, options.out.with_name("memory.png"))
    print(json.dumps(results))


def _tokens(base: Path | None, path: Path) -> list[Way]:
    from services.validate.tokenizer import load  # noqa: PLC0415  slow to load

    if base is None:
        from examples import tiny_base  # noqa: PLC0415

        base = tiny_base.ensure()
    return ways_of_tokens(load(str(base), "base"), path, os.cpu_count() or 1)


def compare(ways: list[Way], path: Path, rows: int, rounds: int) -> dict[str, Any]:
    """Time the ways in turns."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for way in ways:
            best[way] = min(best[way], timed(way, path, rows))
    first: dict[str, float] = {}
    found: dict[str, Any] = {}
    megabytes = path.stat().st_size / 1e6
    for way, seconds in best.items():
        ratio = first.setdefault(way.group, seconds) / seconds
        if way.group not in found:
            print(way.group)
        found.setdefault(way.group, {})[way.name] = {
            "rows_per_s": rows / seconds,
            "mb_per_s": megabytes / seconds,
            "x_first": ratio,
        }
        print(f"  {way.name:56} {rows / seconds:10,.0f} {megabytes / seconds:8,.1f} {ratio:8.2f}")
    return found


def timed(way: Way, path: Path, rows: int) -> float:
    """Seconds of one run, on as many cores as the way says.

    Raises:
        AssertionError: it did not find all rows right.
    """
    cores = os.sched_getaffinity(0)
    clock = time.process_time if way.cores == 1 else time.perf_counter
    try:
        os.sched_setaffinity(0, sorted(cores)[: way.cores])
        begin = clock()
        found = way.run(path)
        seconds = clock() - begin
    finally:
        os.sched_setaffinity(0, cores)
    assert found == rows, f"{way.name} found {found} of {rows} rows right"
    return seconds


def newlines(path: Path, size: int) -> dict[str, float]:
    """Seconds for a file of newlines: to read it, and to check it."""
    with path.open("wb") as file:
        for _ in range(size):
            file.write(b"\n" * 10**6)
    seconds = {}
    for name, run in {"read": lambda path: len(path.read_bytes()), "ours": ours}.items():
        begin = time.process_time()
        run(path)
        seconds[name] = time.process_time() - begin
    path.unlink()
    print(f"{size} MB of newlines: read in {seconds['read']:.2f} s, checked in {seconds['ours']:.2f} s")
    return {"mb": size, **seconds}


if __name__ == "__main__":
    main()
