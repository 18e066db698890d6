"""The folders of attempts on the local disk."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.trainer import app
from services.trainer.job import folders
from shared.errors import TransientError
from shared.settings import Settings
from tests.support.fakes.store import FakeStore

JOB = "ftjob-" + "a" * 24
WORKER = """
import asyncio, sys
from pathlib import Path
from services.trainer.job.folders import attempt_folder

async def main():
    async with attempt_folder(Path(sys.argv[1]), sys.argv[2], 1) as folder:
        (folder / "weights").write_bytes(b"x" * 1000)
        print("works", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_is_not(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, str(tmp_path), JOB), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"works\n"
        folders.remove_unused(tmp_path)
        assert (tmp_path / JOB / "attempt-1" / "weights").exists()
    finally:
        process.kill()
        await process.wait()
    assert (tmp_path / JOB / "attempt-1" / "weights").exists()
    folders.remove_unused(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_attempts_of_one_process_do_not_remove_each_others_folders(tmp_path: Path) -> None:
    async with folders.attempt_folder(tmp_path, JOB, 1) as one:
        async with folders.attempt_folder(tmp_path, JOB, 2) as other:
            folders.remove_unused(tmp_path)
            assert one.is_dir() and other.is_dir()
        folders.remove_unused(tmp_path)
        assert one.is_dir() and not other.exists()
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_is_empty_when_an_attempt_begins_however_it_was_left(tmp_path: Path) -> None:
    (tmp_path / JOB / "attempt-1").mkdir(parents=True)
    (tmp_path / JOB / "attempt-1" / "old").touch()
    async with folders.attempt_folder(tmp_path, JOB, 1) as folder:
        assert list(folder.iterdir()) == []


async def test_two_processes_that_make_the_same_attempt_in_one_place_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "TRIES", 2)
    monkeypatch.setattr(folders, "TRY_SECONDS", 0.0)
    async with folders.attempt_folder(tmp_path, JOB, 1) as folder:
        with pytest.raises(TransientError, match="TUNESTREAM_TRAINER__WORK_DIR"):
            async with folders.attempt_folder(tmp_path, JOB, 1):
                pass
        assert folder.is_dir()


def test_the_start_of_the_service_removes_what_is_left_over_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / "data" / "attempt-1", tmp_path / JOB / "notes", tmp_path / "models.txt"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    (outside / "attempt-1").mkdir(parents=True)
    (tmp_path / ("ftjob-" + "b" * 24)).symlink_to(outside)
    (tmp_path / JOB / "attempt-1").mkdir()
    (tmp_path / JOB / "attempt-12.lock").touch()
    settings = Settings.model_validate({"trainer": {"work_dir": tmp_path}})
    app.build(SimpleNamespace(settings=settings, objects=FakeStore()))  # type: ignore[arg-type]
    assert all(path.exists() for path in kept) and (outside / "attempt-1").is_dir()
    assert [path.name for path in (tmp_path / JOB).iterdir()] == ["notes"]


def test_a_work_folder_that_is_not_there_yet_is_no_problem(tmp_path: Path) -> None:
    folders.remove_unused(tmp_path / "none")
    assert not (tmp_path / "none").exists()
