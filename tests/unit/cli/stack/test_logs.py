"""Reading and following the log files of the stack."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from cli.stack import logs
from cli.terminal import CliError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "weed.log").write_text("".join(f"weed {number}\n" for number in range(100)))
    (tmp_path / "trainer.log").write_text("t 1\nt 2\n")
    (tmp_path / "supervisord.log").write_text("internal\n")
    (tmp_path / "weed.log.1").write_text("old\n")
    return tmp_path


def test_the_last_lines_of_one_process(folder: Path) -> None:
    assert list(logs.read(logs.files(folder, "weed"), 2, follow=False)) == ["weed 98", "weed 99"]


def test_several_processes_are_told_apart(folder: Path) -> None:
    assert list(logs.read(logs.files(folder, None), 1, follow=False)) == ["trainer | t 2", "weed | weed 99"]


def test_following_goes_on_through_a_rotation(folder: Path) -> None:
    path = folder / "trainer.log"
    writes = iter([lambda: append("t 3\nhal"), lambda: append("f\n"), lambda: rotate("t 5\n"), lambda: append("t 6\n")])

    def append(text: str) -> None:
        with path.open("a") as file:
            file.write(text)

    def rotate(text: str) -> None:
        append("t 4\n")
        path.rename(folder / "trainer.log.1")
        path.write_text(text)

    stream = logs.read({"trainer": path}, 1, follow=True, sleep=lambda seconds: next(writes)())
    assert list(islice(stream, 6)) == ["t 2", "t 3", "half", "t 4", "t 5", "t 6"]


def test_an_unknown_process_is_an_error_that_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(CliError) as caught:
        logs.files(folder, "trianer")
    assert "trainer" in caught.value.remedy


def test_without_logs_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="there are no logs"):
        logs.files(tmp_path, None)
