"""How quickly and in how much memory datasets are checked.

    python -m benchmarks.validate [--base path/to/base] [--sizes 10 100 500 2000] [--out results.json]

All ways of one group check the same file in turns, and the best of the rounds counts. A way on one core is timed by the
processor's clock and pinned to that core. One on all cores is timed by the clock on the wall, which other programs slow
down, and by the processors' clock (`alone`: with all cores to itself, and none of them idle). Ratios are to the first
way of the group. Rivals of the survey read a part of the rows. Then come a file of newlines, against reading it, and
the memory (`memory.png` beside the results).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

from benchmarks.validate import memory
from benchmarks.validate.data import write_rows
from benchmarks.validate.survey import ways_of_survey, with_private
from benchmarks.validate.ways import Way, ours, ways_of_form, ways_of_tokens


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
        print(f"{'way':66} {'rows/s':>10} {'alone':>10} {'MB/s':>8} {'x':>8} {'x alone':>8}")
        results |= compare(ways_of_form(), rows, options.rows, options.rounds)
        logged = folder / "logged.jsonl"
        logged.write_bytes(b"".join(with_private(rows.read_bytes().splitlines(keepends=True))))
        results |= compare(ways_of_survey(), logged, options.rows, min(2, options.rounds))
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
    best = dict.fromkeys(ways, (float("inf"), float("inf")))
    for _ in range(rounds):
        for way in ways:
            taken = timed(way, path, rows)
            best[way] = min(best[way][0], taken[0]), min(best[way][1], taken[1])
    first: dict[str, tuple[float, float]] = {}
    found: dict[str, Any] = {}
    megabytes = path.stat().st_size / 1e6
    for way, seconds in best.items():
        rate, alone = (rows / way.fewer / one for one in seconds)
        of_first = first.setdefault(way.group, (rate, alone))
        ratio, ratio_alone = rate / of_first[0], alone / of_first[1]
        if way.group not in found:
            print(way.group)
        size = megabytes / way.fewer / seconds[0]
        measured = {"rows_per_s": rate, "rows_per_s_alone": alone, "mb_per_s": size}
        measured |= {"x_first": ratio, "x_first_alone": ratio_alone}
        found.setdefault(way.group, {})[way.name] = measured
        print(f"  {way.name:64} {rate:10,.0f} {alone:10,.0f} {size:8,.1f} {ratio:8.2f} {ratio_alone:8.2f}", flush=True)
    return found


def timed(way: Way, path: Path, rows: int) -> tuple[float, float]:
    """Seconds of one run on as many cores as the way says, by the clock on the wall, and by that of the processors for
    the process and all that it has started, divided by the cores. On one core, both are the latter.

    Raises:
        AssertionError: it did not find all rows right.
    """
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, sorted(cores)[: way.cores])
        wall, processor = time.perf_counter(), _of_all()
        found = way.run(path)
        wall, processor = time.perf_counter() - wall, _of_all() - processor
    finally:
        os.sched_setaffinity(0, cores)
    rows //= way.fewer
    assert found == rows, f"{way.name} found {found} of {rows} rows right"
    return processor if way.cores == 1 else wall, processor / way.cores


def _of_all() -> float:
    """Seconds of the processors for this process and those that it waited for."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


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
