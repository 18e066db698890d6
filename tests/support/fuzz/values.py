"""Hostile values, as JSON text or as names; and texts of JSON that are broken in one place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

PLACEHOLDER = "@@hostile@@"
Path = tuple[str | int, ...]

TOKENS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1e-999",
    "-0.0",
    "9" * 5000,
    "-" + "9" * 400,
    "1" + "0" * 30 + ".5",
    "null",
    "true",
    "0",
    "-1",
    "[]",
    "{}",
    '""',
    '" "',
    '"\\u0000"',
    '"\\ud800"',
    '"a\\udfffb"',
    '"\\ud83d"',
    '"..\\/..\\/x"',
    '"\\u202e\\u0301\\ufeff"',
    '"\\u0007\\u001b[2J"',
    '{"a":' * 2_000 + "1" + "}" * 2_000,
    "[" * 20_000 + "]" * 20_000,
    "[" * 100_000,
    '[NaN, {"b": [1e999]}]',
    '{"__proto__": 1, "": 2, "$ref": "#"}',
    '{"a": 1, "a": 2}',
    "'single'",
    "01",
    "1_000",
    "undefined",
    '"tab\tin it"',
)


def token(random: Random) -> str:
    """A JSON value, or what looks like one."""
    if random.random() < 0.05:
        return json.dumps(random.choice("aß日\U0001f600") * random.choice((300, 5_000, 70_000)))
    return random.choice(TOKENS)


def paths(value: Any, before: Path = ()) -> Iterator[Path]:
    """The paths of all values in a JSON value, itself included."""
    yield before
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, (*before, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*before, index))


def replaced(value: Any, path: Path, new: Any) -> Any:
    """A copy with another value at a path."""
    if not path:
        return new
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = replaced(copied[path[0]], path[1:], new)
    return copied


def mutated(value: Any, random: Random) -> bytes:
    """The JSON text of `value` with a hostile token in one place, or in a field that is new."""
    places = [path for path in paths(value) if path]
    if not places or random.random() < 0.1:
        changed = {**value, random.choice(("later", "", "job_id ", "\u0000")): PLACEHOLDER}
    else:
        changed = replaced(value, random.choice(places), PLACEHOLDER)
    return json.dumps(changed).replace(json.dumps(PLACEHOLDER), token(random)).encode("utf-8", "surrogatepass")


def broken(value: Any, random: Random) -> bytes:
    """The JSON text of `value` with bytes cut, doubled or changed."""
    text = bytearray(json.dumps(value).encode())
    for _ in range(random.choice((1, 1, 3, 10))):
        at = random.randrange(len(text))
        match random.randrange(4):
            case 0:
                del text[at:]
                text += b"{"
            case 1:
                text[at] = random.randrange(256)
            case 2:
                text[at:at] = random.choice((b"\xed\xa0\x80", b"\xff", b"\0", b"\\u", b'"', b"{", b",,"))
            case _:
                text[at : at + 9] = b""
        text = text or bytearray(b"\xfe")
    return bytes(text)


def noise(random: Random, most: int = 4096) -> bytes:
    """Random bytes; one to `most` of them."""
    return random.randbytes(random.randint(1, most))


BUCKETS = (
    "",
    "..",
    "a",
    "Datasets",
    "no_such.bucket-",
    "-x",
    "a/b",
    "x" * 64,
    "dätasets",
    "192.168.0.1",
    "bus",
    "a\0b",
)


def bucket(random: Random) -> str:
    """A name that no bucket can have, or that of a bucket that is not there or not ours."""
    return random.choice(BUCKETS)


def no_key(random: Random) -> str:
    """A key that S3 refuses, or under which there is nothing."""
    return random.choice(
        (
            "",
            "/",
            "..",
            "../../etc/passwd",
            ".",
            "a/../b.jsonl",
            "x" * 1025 + ".jsonl",
            "日" * 400,
            "a\0.jsonl",
            "nothing",
        )
    )
