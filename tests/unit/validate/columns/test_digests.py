"""The table of digests remembers first lines as a dict would."""

from __future__ import annotations

import tracemalloc
from random import Random

import pytest

from services.validate.columns import Digests

CROWDED = b"\xff" * 7  # digests that begin so have their homes in one place, at the end of the table


@pytest.mark.parametrize("expected", [0, 20_000, 400_000])
@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("many", [False, True])
def test_the_first_line_of_every_digest_is_remembered(expected: int, crowded: bool, many: bool) -> None:
    random = Random(7)
    pool = [
        CROWDED + random.randbytes(9) if crowded else random.randbytes(16) for _ in range(3000 if crowded else 20_000)
    ]
    known: dict[bytes, int] = {}
    digests, line = Digests(expected), 0
    for _ in range(25):
        some = [random.choice(pool) for _ in range(random.randrange(1, 1500))]
        lines = [line := line + random.randrange(1, 4) for _ in some]
        firsts = [known.setdefault(digest, number) for digest, number in zip(some, lines, strict=True)]
        repeated = [(i, first) for i, first in enumerate(firsts) if first != lines[i]]
        if many:
            assert digests.first_of_many(b"".join(some), lines) == repeated
        else:
            assert [digests.first(digest, number) for digest, number in zip(some, lines, strict=True)] == firsts
    assert all(digest in digests for digest in known)
    assert random.randbytes(16) not in digests


def test_a_table_for_as_many_rows_as_come_takes_no_more_memory_while_they_come() -> None:
    rows, block = 400_000, 10_000
    known, random = Digests(rows), Random(7)
    tracemalloc.start()
    try:
        for begin in range(0, rows, block):
            known.first_of_many(random.randbytes(16 * block), range(begin, begin + block))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * 2**20
