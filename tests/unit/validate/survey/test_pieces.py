"""A file in pieces, looked at by several processes, is the same as the file in one."""

from __future__ import annotations

import json
import random
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from services.validate.reader import Source
from services.validate.scan import ScanControl
from services.validate.survey import chunks as chunking
from services.validate.survey import pool
from services.validate.survey.chunks import Chunk, chunks
from services.validate.survey.look import look
from services.validate.survey.part import Options
from services.validate.survey.survey import Survey, survey
from shared.errors import Cancelled
from shared.events import JobSpec
from shared.settings import ValidationSettings
from tests.unit.validate.survey.conftest import chat, varied

LIMIT = 60


@pytest.mark.parametrize("seed", range(30))
def test_pieces_are_whole_lines_and_nothing_is_lost(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    ends = [b"\n", b"\r\n", b"\n\n"]
    lines = [b"x" * dice.choice((0, 1, 7, 30, LIMIT, LIMIT + 9, 500)) + dice.choice(ends) for _ in range(40)]
    data = b"".join(lines) + dice.choice((b"", b"y" * 11, b"y" * 300))
    path = tmp_path / "file"
    path.write_bytes(data)
    found = list(chunks(path, LIMIT, size=dice.choice((1, 16, 64, 100, 10_000))))
    assert [piece.start for piece in found] == [0, *(piece.end for piece in found[:-1])]
    assert found[-1].end == len(data)
    for piece in found:
        assert data[piece.start - 1 : piece.start] in (b"", b"\n")
        if piece.too_long:
            assert data[piece.start : piece.end].count(b"\n") <= 1 and piece.end - piece.start > LIMIT
    counted = sum(1 if each.too_long else look(data[slice(*each[:2])], Options("", LIMIT)).lines for each in found)
    assert counted == data.count(b"\n") + (not data.endswith(b"\n"))


def children() -> set[psutil.Process]:
    """Processes below this one; other tests of the same run may have left some, such as a resource tracker."""
    return set(psutil.Process().children(recursive=True))


def surveyed(path: Path, folder: Path, control: ScanControl | None = None) -> Survey:
    spec = JobSpec.model_validate({"checks": {"personal_data": "redact"}})
    source, limits = Source(path, path.name), ValidationSettings()
    return survey(source, None, spec=spec, limits=limits, control=control or ScanControl(), folder=folder)


@pytest.fixture
def many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WORTH_IT", 0)
    monkeypatch.setattr(pool.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(
        "services.validate.survey.survey.chunks", lambda path, limit: chunking.chunks(path, limit, 4096)
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = varied(80)
    rows += [chat(f"{row['messages'][0]['content']} please", row["messages"][1]["content"]) for row in rows[:9]]
    rows += [chat(f"Write to a{number}@mail.example.org", "We did, thank you") for number in range(9)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n".join(map(json.dumps, rows)))
    return path


def test_processes_find_what_one_finds(file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    before = children()
    alone = surveyed(file, tmp_path)
    clean = alone.training_file.path.read_bytes()
    request.getfixturevalue("many_pieces")
    together = surveyed(file, tmp_path)
    assert together.training is not None and alone.training is not None
    # of texts whose language is not clear, each piece gives some to the sample
    unlike = {"languages": {}}
    assert together.training.facts.model_copy(update=unlike) == alone.training.facts.model_copy(update=unlike)
    assert replace(together.training, facts=alone.training.facts) == alone.training
    assert alone.training.facts.near_duplicates.rows == 17 and alone.training.facts.personal_data.rows == 9
    assert together.training_file.path.read_bytes() == clean and clean.count(b"[EMAIL]") == 9
    assert children() <= before


def test_a_stopped_survey_ends_its_processes(file: Path, tmp_path: Path, many_pieces: None) -> None:
    before = children()
    control = ScanControl()
    control.on_progress = lambda role, rows, share: control.stop.set()
    with pytest.raises(Cancelled):
        surveyed(file, tmp_path, control)
    assert children() <= before


def test_a_process_that_dies_is_an_error_and_no_short_result(
    file: Path, monkeypatch: pytest.MonkeyPatch, many_pieces: None
) -> None:
    monkeypatch.setattr(pool.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended with code 1"):
        list(pool.looked_at([Chunk(0, 10)], Options(str(file), LIMIT), 10, threading.Event()))
