"""The ways of checking a file that are compared. Each takes the file and returns how many rows it found right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from services.validate.checks import Context
from services.validate.reader import Source
from services.validate.scan import ScanControl, scan
from services.validate.tokenizer import BaseTokenizer
from shared.events import JobSpec
from shared.settings import ValidationSettings


@dataclass(frozen=True)
class Way:
    """`cores`: on so many it may run; its rate is per second of the clock. `group`: rates are compared within one.
    `fewer`: it reads so many times fewer rows, because it is slow."""

    group: str
    name: str
    run: Callable[[Path], int]
    cores: int = 1
    fewer: int = 1


FORM = "form, roles, empty answers, duplicates, contradictions"


def ways_of_form() -> list[Way]:
    """What needs no tokenizer, each on one core. The first is what the others are compared with."""
    return [
        Way(FORM, "the guide's loop (three checks)", the_guides_loop),
        Way(FORM, "msgspec, parsing alone", msgspec_alone),
        Way(FORM, "ours", ours),
    ]


def the_guides_loop(path: Path) -> int:
    """Read, parse, and ask three things of each row, as a guide shows it."""
    right = 0
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                print(f"line {number}: invalid JSON")
                continue
            if "messages" not in row:
                print(f"line {number}: no messages")
                continue
            messages = row["messages"]
            if any(message.get("role") not in ("system", "user", "assistant") for message in messages):
                print(f"line {number}: unknown role")
                continue
            if not any(message["role"] == "assistant" and message.get("content") for message in messages):
                print(f"line {number}: no answer")
                continue
            right += 1
    return right


def msgspec_alone(path: Path) -> int:
    """Only parses, into dicts and lists."""
    decode = msgspec.json.Decoder().decode
    with path.open("rb") as file:
        return sum(1 for line in file if decode(line))


def ours(path: Path) -> int:
    """All that is checked without a base."""
    return scanned(path, None)


def scanned(path: Path, tokenizer: BaseTokenizer | None) -> int:
    context = Context("training", JobSpec(), 4096 if tokenizer else None)
    made = scan(
        Source(path, path.name), context, tokenizer=tokenizer, limits=ValidationSettings(), control=ScanControl()
    )
    return made.report.usable


# --- tokens ------------------------------------------------------------------------------------------------------

TOKENS = "tokens (all cores)"


def ways_of_tokens(tokenizer: BaseTokenizer, path: Path, cores: int) -> list[Way]:
    """`bare`: the same tokenizer's `encode_batch`, for texts that are rendered already; `ours`: the whole check."""
    theirs: Any = tokenizer._tokenizer
    rows = [json.loads(line)["messages"] for line in path.read_bytes().splitlines()]
    texts = [theirs.apply_chat_template(messages, tokenize=False) for messages in rows]

    def bare(_: Path) -> int:
        return len(theirs.backend_tokenizer.encode_batch(texts, add_special_tokens=False))

    return [
        Way(TOKENS, "bare encode_batch", bare, cores),
        Way(TOKENS, "ours, all checks and tokens", lambda path: scanned(path, tokenizer), cores),
    ]
