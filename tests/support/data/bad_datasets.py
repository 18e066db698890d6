"""Ten datasets that cannot be trained on, each with the line, the field and the remedy that the error must name."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.data.datasets import good, good_row, lines


@dataclass(frozen=True)
class BadDataset:
    """A dataset and what the job must answer.

    `code` is the job's error code. `problem`, `line` and `field` are those of the first problem in the report. Every
    part of `says` must appear in the job's error message, together with a remedy.
    """

    name: str
    chunks: Callable[[], Iterator[bytes]]
    code: str
    problem: str
    line: int | None
    field: str
    says: tuple[str, ...]

    def write(self, folder: Path) -> Path:
        path = folder / f"{self.name}.jsonl"
        with path.open("wb") as file:
            file.writelines(self.chunks())
        return path


def _empty() -> Iterator[bytes]:
    yield b""


def _not_utf8() -> Iterator[bytes]:
    yield good(11)
    yield '{"messages": [{"role": "user", "content": "café"}]}\n'.encode("latin-1")
    yield good(3)


def _long_line() -> Iterator[bytes]:
    """200 MB without a line end: the writer forgot the newlines."""
    yield good(12)
    yield b'{"messages": [{"role": "user", "content": "'
    for _ in range(200):
        yield b"a" * 10**6
    yield b'"}]}\n'
    yield good(3)


def _deep() -> Iterator[bytes]:
    yield good(10)
    yield b"[" * 100_000 + b"\n"


def _missing_role() -> Iterator[bytes]:
    broken = good_row(99)
    del broken["messages"][2]["role"]
    yield good(11) + lines(broken) + good(4)


def _empty_assistant() -> Iterator[bytes]:
    broken = good_row(99)
    broken["messages"][2]["content"] = "  "
    yield good(6) + lines(broken) + good(6)


def _nine_rows() -> Iterator[bytes]:
    yield good(9)


def _wrong_types() -> Iterator[bytes]:
    content, messages, weight = good_row(97), good_row(98), good_row(99)
    content["messages"][1]["content"] = 42
    messages["messages"] = "hello"
    weight["messages"][2]["weight"] = 0.5
    yield good(10) + lines(content, messages, weight)


def _duplicates_only() -> Iterator[bytes]:
    yield lines(*[good_row(1)] * 50)


def _binary() -> Iterator[bytes]:
    yield bytes(random.Random(0).randrange(256) for _ in range(4096)) + b"\0\n"


BAD_DATASETS: tuple[BadDataset, ...] = (
    BadDataset("empty", _empty, "invalid_training_file", "empty_file", None, "", ("is empty", "upload a JSONL file")),
    BadDataset("not_utf8", _not_utf8, "invalid_training_file", "invalid_utf8", 12, "", ("Line 12", "byte 47", "UTF-8")),
    BadDataset(
        "long_line", _long_line, "invalid_training_file", "line_too_long", 13, "", ("Line 13", "16 MiB", "split")
    ),
    BadDataset("deep_nesting", _deep, "invalid_training_file", "nested_too_deeply", 11, "", ("Line 11", "flatten")),
    BadDataset(
        "missing_role",
        _missing_role,
        "invalid_training_file",
        "missing_field",
        12,
        "messages[2].role",
        ("Line 12, messages[2].role: 'role' is missing; add one of system, user, assistant, tool",),
    ),
    BadDataset(
        "empty_assistant",
        _empty_assistant,
        "invalid_training_file",
        "empty_assistant",
        7,
        "messages[2].content",
        ("Line 7, messages[2].content", "write the answer to learn"),
    ),
    BadDataset(
        "nine_rows",
        _nine_rows,
        "invalid_n_examples",
        "too_few_examples",
        None,
        "",
        ("Training file has 9 example(s), but must have at least 10 examples", "add 1 or more"),
    ),
    BadDataset(
        "wrong_types",
        _wrong_types,
        "invalid_training_file",
        "wrong_type",
        11,
        "messages[1].content",
        ("Line 11, messages[1].content: is a number; make it a string", "and 2 more problems"),
    ),
    BadDataset(
        "duplicates_only",
        _duplicates_only,
        "invalid_n_examples",
        "too_few_examples",
        None,
        "",
        ("Training file has 1 example(s)", "49 are exact duplicates", "add 9 or more different examples"),
    ),
    BadDataset("binary", _binary, "invalid_training_file", "binary_file", None, "", ("binary", "UTF-8 text file")),
)
