"""Fixtures: a base whose tokens are bytes, so that counts can be computed by hand; rows and files; a fake tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.validate.check import Examined, examine
from services.validate.domain.content import Row, conversations, input_of
from services.validate.domain.findings import Finding
from services.validate.domain.served import Turn
from services.validate.reader import Source
from services.validate.scan import ScanControl
from shared.base import BaseProfile
from shared.conversation import sent_tools, text_of
from shared.events import JobSpec
from shared.settings import ValidationSettings
from tests.support.data.byte_base import CHATML, CONTEXT, make_byte_base
from tests.support.data.datasets import good_row


@pytest.fixture(scope="session")
def make_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with a tokenizer of one token per byte, and one per special token."""

    def make(template: str | None = CHATML, context: int = CONTEXT) -> Path:
        return make_byte_base(tmp_path_factory.mktemp("base"), template, context)

    return make


@pytest.fixture(scope="session")
def base(make_base: Callable[..., Path]) -> Path:
    return make_base()


class WordTokenizer:
    """Counts words, and goes through the same normalisation as the real one."""

    base = "words"
    template: str | None = None
    probe: str | None = None

    def __init__(self, context: int | None = None) -> None:
        self.context = context
        self.profile = BaseProfile(
            digest="abc", architecture="Words", template_digest=None, content_format=None, context=context
        )

    def measure(self, batches: Iterable[Sequence[Row]]) -> Iterator[list[tuple[Row, tuple[int, ...] | Finding]]]:
        for rows in batches:
            yield [(row, self._sequences(row)) for row in rows]

    def prompt_tokens(self, row: Row) -> int:
        return len(row.value["prompt"].split()) if row.format == "completion" else _words(self._before(row))

    def _sequences(self, row: Row) -> tuple[int, ...]:
        if row.format == "completion":
            return (len((row.value["prompt"] + " " + row.value["completion"]).split()),)
        json.dumps(sent_tools(input_of(row)))
        return tuple(_words([messages[: turns[-1] + 1]]) for messages, turns in conversations(row))

    def turns(self, row: Row) -> Iterator[Turn]:
        raise AssertionError("no server is asked in these tests")

    def piece(self, token: int) -> tuple[str, bool]:
        raise AssertionError("no server is asked in these tests")

    def decoded(self, row: Row) -> list[list[tuple[str, bool]]]:
        return [[("what was asked ", False), (str(row.value), True)]]

    def _before(self, row: Row) -> Iterable[Sequence[dict[str, Any]]]:
        messages, turns = conversations(row)[0]
        return [messages[: turns[0]]]


def _words(many: Iterable[Sequence[dict[str, Any]]]) -> int:
    return sum(len(text_of(message.get("content")).split()) for messages in many for message in messages)


Examine = Callable[..., Examined]


@pytest.fixture
def run(tmp_path: Path) -> Examine:
    """Examine rows (values, or bytes for a line that is no JSON) as a file, and perhaps a validation file."""

    def examine_rows(
        rows: Iterable[Any] | bytes,
        *,
        validation: Iterable[Any] | None = None,
        tokenizer: Any = None,
        limits: ValidationSettings | None = None,
        **spec: Any,
    ) -> Examined:
        return examine(
            write(tmp_path / "train-me.jsonl", rows),
            write(tmp_path / "validate-me.jsonl", validation) if validation is not None else None,
            spec=JobSpec.model_validate(spec),
            tokenizer=tokenizer,
            limits=limits or ValidationSettings(),
            control=ScanControl(),
        )

    return examine_rows


def write(path: Path, rows: Iterable[Any] | bytes) -> Source:
    if not isinstance(rows, bytes):
        rows = b"".join(row + b"\n" if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)
    path.write_bytes(rows)
    return Source(path, path.name)


def chats(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [good_row(number) for number in range(start, start + count)]


def completions(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Question {number}:", "completion": f" answer {number}"} for number in range(start, start + count)
    ]


def preferences(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "input": {"messages": [{"role": "user", "content": f"Say {number}"}]},
            "preferred_completion": [{"role": "assistant", "content": f"{number}, gladly"}],
            "non_preferred_completion": [{"role": "assistant", "content": "No"}],
        }
        for number in range(start, start + count)
    ]
