"""Checks a dataset as the stage does: survey, scan, splits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from services.validate.check import Examined, examine, write_splits
from services.validate.reader import Source
from services.validate.scan import ScanControl
from services.validate.survey.survey import survey
from shared.events import JobSpec
from shared.settings import ValidationSettings

WORDS = [
    "river",
    "stone",
    "garden",
    "window",
    "paper",
    "silver",
    "market",
    "bridge",
    "candle",
    "forest",
    "engine",
    "signal",
    "copper",
    "harbor",
    "ladder",
    "mirror",
    "pepper",
    "quartz",
    "ribbon",
    "saddle",
    "timber",
    "tunnel",
    "velvet",
    "walnut",
    "winter",
    "yellow",
    "zipper",
    "anchor",
    "basket",
    "cactus",
    "dragon",
    "falcon",
]


class Checked:
    """The report of a dataset, and its splits by name."""

    def __init__(self, examined: Examined, splits: dict[str, list[Any]]) -> None:
        self.report = examined.report
        self.splits = splits

    @property
    def rows(self) -> list[Any]:
        return [row for rows in self.splits.values() for row in rows]

    def lines(self, code: str) -> list[int]:
        """The lines of the warnings or errors of one code."""
        return [found.line for found in self.report.training.problems if found.code == code and found.line]


def texts(count: int, words: int = 24, start: int = 0) -> list[str]:
    """Different texts of made-up sentences."""
    return [
        " ".join(
            WORDS[(number * 7 + at * (number % 11 + 3) + at * at) % len(WORDS)] + str(number % 97)
            for at in range(words)
        )
        for number in range(start, start + count)
    ]


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def varied(count: int) -> list[dict[str, Any]]:
    """Rows that have nothing in common."""
    return [chat(question, answer) for question, answer in zip(texts(count), texts(count, start=5000), strict=True)]


@pytest.fixture
def checked(tmp_path: Path) -> Callable[..., Checked]:
    def write(name: str, rows: Iterable[Any] | bytes) -> Source:
        path = tmp_path / name
        data = rows if isinstance(rows, bytes) else b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        path.write_bytes(data)
        return Source(path, name)

    def check(rows: Iterable[Any] | bytes, validation: Iterable[Any] | None = None, **spec: Any) -> Checked:
        job, limits, control = JobSpec.model_validate(spec), ValidationSettings(), ScanControl()
        files = write("rows.jsonl", rows), write("more.jsonl", validation) if validation is not None else None
        surveyed = survey(*files, spec=job, limits=limits, control=control, folder=tmp_path)
        now = surveyed.training_file, surveyed.validation_file
        examined = examine(*now, spec=job, tokenizer=None, limits=limits, control=control, surveyed=surveyed)
        splits: dict[str, list[Any]] = {}
        if examined.report.ok:
            (tmp_path / "splits").mkdir(exist_ok=True)
            write_splits(examined, *now, tmp_path / "splits", control)
            for path in (tmp_path / "splits").iterdir():
                splits[path.stem] = [json.loads(line) for line in path.read_bytes().splitlines()]
        return Checked(examined, splits)

    return check
