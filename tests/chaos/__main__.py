"""`python -m tests.chaos --faults 20 --seed 1`: breaks a stack at work, and says whether anything was lost."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.chaos.facts import Facts
from tests.chaos.faults import Injector
from tests.chaos.oracle import Verdict, judge
from tests.chaos.schedule import schedule
from tests.chaos.stack import Stack
from tests.chaos.witness import Witness, collect
from tests.chaos.workload import STORE_ERRORS, Workload
from tests.support.user import ROOT

FOLDER = ROOT / ".cache" / "chaos"
END_SECONDS = 600.0
"""Seconds within which everything ends after the last fault."""
SHOWN = 12
"""How many violations of a rule are printed; the file `facts.json` has what they are made of."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=20, help="how many faults (20)")
    parser.add_argument("--seed", default="", help="draws the same faults again; without it, another each time")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two faults, on average (5)")
    parser.add_argument("--full", action="store_true", help="break the full stack, in Docker Compose")
    options = parser.parse_args()
    seed = options.seed or str(random.SystemRandom().randrange(10**6))
    again = f"make chaos{'-full' if options.full else ''} N={options.faults} SEED={seed} EVERY={options.every:g}"
    folder = FOLDER / f"{'full-' if options.full else ''}{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the stack is stopped
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it logs each refused connection
    facts, began = Facts(), time.monotonic()

    def say(line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {time.monotonic() - began:5.0f} s  {line}", flush=True)  # noqa: T201

    say(f"{again}  on {machine()}, commit {commit()}")
    with _stack(folder, facts, full=options.full) as stack:
        say(f"the stack is up; logs: {stack.logs}")
        run(stack, facts, seed, options.faults, options.every, say)
    verdicts = judge(facts)
    facts.save(folder / "facts.json")
    return report(facts, verdicts, say, again, folder)


@contextmanager
def _stack(folder: Path, facts: Facts, *, full: bool) -> Iterator[Stack]:
    if full:
        from tests.chaos import compose  # noqa: PLC0415  # needs Docker

        with compose.running(folder, facts.left) as containers:
            yield containers
    else:
        from tests.chaos import embedded  # noqa: PLC0415

        with embedded.running(folder, facts.left) as processes:
            yield processes


def run(stack: Stack, facts: Facts, seed: str, count: int, every: float, say: Callable[[str], None]) -> None:
    """Break the stack while it works, wait for the end of everything, and collect what is there."""
    faults = schedule(seed, count, stack.targets, every)
    workload, witness, injector = Workload(stack, facts, seed), Witness(stack, facts), Injector(stack, say)
    witness.start()
    workload.start()
    try:
        injector.run(faults)
        facts.hits = injector.hits
        say(f"all faults have ended; {len(workload.open())} jobs are under way")
        workload.enough()
        wait_for_the_end(stack, workload, witness, facts, say)
        workload.stop()
    finally:
        witness.stop()
    say("everything has ended, the oracle looks" if facts.deadline_met else "NOT everything has ended")
    facts.not_ready = stack.not_ready()
    collect(stack, facts)


def wait_for_the_end(
    stack: Stack, workload: Workload, witness: Witness, facts: Facts, say: Callable[[str], None]
) -> None:
    deadline, told = time.monotonic() + END_SECONDS, time.monotonic()
    while True:
        workload.check()
        try:
            unpublished = [f"the event of {key}" for key in witness.unpublished()]
        except STORE_ERRORS as error:
            unpublished = [f"the store: {error}"]
        left = [*workload.open(), *unpublished, *stack.not_ready()]
        if not left:
            return
        if time.monotonic() > deadline:
            facts.deadline_met = False
            say(f"not within {END_SECONDS:.0f} s: {', '.join(left)}")
            return
        if time.monotonic() > told + 30:
            told = time.monotonic()
            say(f"waiting for {', '.join(left[:4])}{' …' if len(left) > 4 else ''}")
        time.sleep(1)


def report(facts: Facts, verdicts: list[Verdict], say: Callable[[str], None], again: str, folder: Path) -> int:
    """Print what the oracle says. Returns the exit status."""
    missed = sum(hit.missed for hit in facts.hits)
    good = sum(answer.status == 200 and answer.whole for answer in facts.answers)
    attempts = sum(result.attempt > 1 for job in facts.jobs for result in job.results)
    say(
        f"{len(facts.hits) - missed} faults ({missed} found nothing to hit); {len(facts.sent)} datasets, "
        f"{len(facts.jobs)} jobs, {attempts} results of a later attempt; {len(facts.answers)} requests, {good} "
        f"answered; by hand: {dict(_counted([f'{a.what} {a.status}' for a in facts.asked]))}; "
        f"not answered: {dict(_counted([str(a.status) for a in facts.answers if not (a.status == 200 and a.whole)]))}"
    )
    width = max(len(verdict.rule) for verdict in verdicts)
    for verdict in verdicts:
        result = f"{len(verdict.violations)} BROKEN" if verdict.violations else "holds"
        print(f"  {verdict.rule:<{width}}  {verdict.checked:6} looked at  {result}")  # noqa: T201
    broken = [verdict for verdict in verdicts if verdict.violations]
    for verdict in broken:
        print(f"\n{verdict.rule}:")  # noqa: T201
        for violation in verdict.violations[:SHOWN]:
            print(f"  {violation}")  # noqa: T201
        if len(verdict.violations) > SHOWN:
            print(f"  … and {len(verdict.violations) - SHOWN} more")  # noqa: T201
    say(f"{'BROKEN' if broken else 'every promise held'}: {again}; facts and logs: {folder}")
    return 1 if broken else 0


def _counted(words: list[str]) -> list[tuple[str, int]]:
    return sorted((word, words.count(word)) for word in set(words))


def machine() -> str:
    return f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.machine()}"


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
