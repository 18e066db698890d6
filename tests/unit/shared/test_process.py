"""The garbage of a process that answers many requests."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from shared.process import collect_rarely
kept = [[] for _ in range(100_000)]
collect_rarely()
assert len(gc.get_objects()) < 10_000, "what was there is not looked at again"
for _ in range(300_000):
    cycle = []
    cycle.append(cycle)
assert len(gc.get_objects()) < 150_000, "cycles are collected nevertheless"
"""


def test_a_collection_leaves_out_what_was_there_before_and_still_finds_cycles() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
