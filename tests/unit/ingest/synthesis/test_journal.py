"""The journal on disk: what is in it stays, whatever is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.ingest.domain.synthesis.budget import Cost
from services.ingest.domain.synthesis.history import Answered, Asked, Begun
from services.ingest.synthesis.journal import FileJournal
from shared.errors import InputError

COST = Cost(input=5, output=7, money=0.5)


async def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    with FileJournal(tmp_path / "j") as journal:
        await journal.append(Begun(digest="d"))
        await asyncio.gather(*(journal.append(Asked(id=f"{n}", number=0, cost=COST)) for n in range(50)))
        await journal.append(Answered(id="7", number=0, text="a\nb\u2028c", cost=Cost(input=1)))
    with FileJournal(tmp_path / "j") as journal:
        assert journal.history.digest == "d"
        assert journal.history.answers["7"].text == "a\nb\u2028c"
        assert journal.history.lost == 49
        assert journal.history.used == Cost(input=49 * 5 + 1, output=49 * 7, money=49 * 0.5)


async def test_half_a_line_of_a_killed_process_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with FileJournal(path) as journal:
        await journal.append(Begun(digest="d"), Asked(id="1", number=0, cost=COST))
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with FileJournal(path) as journal:
            assert journal.history.requests == 0
            await journal.append(Asked(id="2", number=0, cost=COST))
        with FileJournal(path) as journal:
            assert journal.history.requests == 1


def test_a_line_that_is_no_entry_is_named(tmp_path: Path) -> None:
    (tmp_path / "j").write_text('{"type": "begun", "digest": "d"}\n{"type": "sung"}\n')
    with pytest.raises(InputError, match="j line 2: no entry"):
        FileJournal(tmp_path / "j")


def test_two_processes_do_not_spend_on_one_journal(tmp_path: Path) -> None:
    with FileJournal(tmp_path / "j"), pytest.raises(InputError, match="another process works on this synthesis"):
        FileJournal(tmp_path / "j")
    FileJournal(tmp_path / "j").__exit__(None, None, None)


async def test_nothing_goes_on_when_the_journal_cannot_be_written(tmp_path: Path) -> None:
    class Full(FileJournal):
        async def _keep(self, lines: bytes) -> None:
            raise OSError("disk full")

    with Full(tmp_path / "j") as journal:
        for _ in range(2):
            with pytest.raises(OSError, match="disk full"):
                await journal.append(Begun(digest="d"))
