"""Parses one line of bytes into a JSON object, or into findings that say what is wrong with it. It never raises,
whatever the bytes.

It refuses all that `shared.strict_json` refuses, and more (repeated keys, NUL characters), and finds every flaw of a
row instead of the first. So whoever reads validated rows need not be strict.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from services.validate.domain.findings import Finding, join, json_type, short
from shared.strict_json import MAX_INTEGER

MAX_FLAWS = 20
"""Of one row. A damaged row may have millions."""
# Tool schemas nest about ten deep. Templates and other readers recurse, so a row far beyond that is refused here.
MAX_DEPTH = 64


def parse(raw: bytes) -> dict[str, Any] | list[Finding]:
    """The JSON object of a line, or findings that say why there is none."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start + 1} of the line (0x{raw[error.start]:02x})"
        return [Finding("invalid_utf8", "", f"{byte} is not UTF-8 text", "save the file as UTF-8")]
    try:
        value = _FAST.decode(text)
    except _FlawFound:
        return _flaws(text)
    except RecursionError:
        return [_TOO_DEEP]
    except json.JSONDecodeError as error:
        return [_invalid_json(error, text)]
    if not isinstance(value, dict):
        return [_not_an_object(value)]
    if _could_be_deep(raw) and _too_deep(value):
        return [_TOO_DEEP]
    # Only an escape can put a surrogate or a NUL into a string: raw ones are not UTF-8 or not JSON.
    if b"\\ud" in raw.lower() or b"\\u0000" in raw:
        return list(islice(_characters(value), MAX_FLAWS)) or value
    return value


_TOO_DEEP = Finding(
    "nested_too_deeply", "", f"is nested more than {MAX_DEPTH} levels deep", "flatten the example; is it damaged?"
)


def _not_an_object(value: Any) -> Finding:
    if isinstance(value, list):
        remedy = "write JSONL: one object per line, without a list around them"
    else:
        remedy = 'write one object per line, such as {"messages": [...]}'
    return Finding("not_an_object", "", f"is {json_type(value)}", remedy)


def _invalid_json(error: json.JSONDecodeError, text: str) -> Finding:
    rest = text[error.pos :].strip()
    if error.msg == "Extra data":
        remedy = "put every example on a line of its own"
    elif not rest:
        remedy = "the line ends too early: put every example whole on a single line"
    elif rest.startswith("'"):
        remedy = "use double quotes"
    elif rest[0] in ",}]":
        remedy = "remove the comma that has nothing after it, or add what is missing"
    else:
        remedy = "write each line with a JSON library"
    return Finding("invalid_json", "", f"is not valid JSON: {error.msg} at column {error.pos + 1}", remedy)


# --- numbers and keys that JSON readers disagree about --------------------------------------------------------------


class _FlawFound(Exception):
    """The fast decoder met a flaw. Its hooks do not know the path, so the line is decoded again and walked."""


@dataclass(frozen=True)
class _Flaw:
    """Marks the place in the decoded tree where something is wrong."""

    code: str
    message: str
    remedy: str


def _decoder(on_flaw: Callable[[_Flaw], Any]) -> json.JSONDecoder:
    """A strict decoder; `on_flaw` gives the value that stands for a flaw, or raises."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) != len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    made[key] = on_flaw(_Flaw("duplicate_key", "is there twice in the same object", "keep one of them"))
                seen.add(key)
        return made

    def constant(name: str) -> Any:
        return on_flaw(_Flaw("not_a_number", f"is {name}, which is not JSON", "use a number or null"))

    def integer(digits: str) -> Any:
        # check the length first: Python's int() is slow with very many digits, or refuses them
        if len(digits) > 20 or abs(value := int(digits)) >= MAX_INTEGER:
            return on_flaw(_Flaw("number_too_large", "is a number of more than 64 bits", "write it as a string"))
        return value

    def fraction(digits: str) -> Any:
        value = float(digits)
        if math.isinf(value):
            return on_flaw(_Flaw("number_too_large", "is a number beyond 1e308", "write it as a string"))
        return value

    return json.JSONDecoder(object_pairs_hook=pairs, parse_constant=constant, parse_int=integer, parse_float=fraction)


def _raise(_: _Flaw) -> Any:
    raise _FlawFound


_FAST = _decoder(_raise)
_MARKING = _decoder(lambda flaw: flaw)


def _flaws(text: str) -> list[Finding]:
    try:
        value = _MARKING.decode(text)
    except RecursionError:
        return [_TOO_DEEP]
    except json.JSONDecodeError as error:
        return [_invalid_json(error, text)]
    flaws = ((path, leaf) for path, leaf in _leaves(value) if isinstance(leaf, _Flaw))
    return [Finding(flaw.code, path, flaw.message, flaw.remedy) for path, flaw in islice(flaws, MAX_FLAWS)]


# --- walking, without recursion -------------------------------------------------------------------------------------


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Every value that is not a container, and every key (as a string at its own path), with their paths, in order."""
    # iterators, not their items: a row may have millions of values, of which the first flaws are enough
    stack: list[Iterator[tuple[str, Any]]] = [iter([("", value)])]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
            continue
        path, item = found
        if isinstance(item, dict):
            yield from ((join(path, short(key)), key) for key in item)
            stack.append(_entries(path, item))
        elif isinstance(item, list):
            stack.append(_items(path, item))
        else:
            yield path, item


def _entries(path: str, item: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((join(path, short(key)), child) for key, child in item.items())


def _items(path: str, item: list[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{path}[{index}]", child) for index, child in enumerate(item))


def _characters(value: Any) -> Iterator[Finding]:
    for path, leaf in _leaves(value):
        if not isinstance(leaf, str):
            continue
        if "\x00" in leaf:
            yield Finding("nul_character", path, "holds a NUL character (\\u0000)", "remove it; is it binary data?")
        if not leaf.isascii() and any("\ud800" <= character <= "\udfff" for character in leaf):
            remedy = "write the character itself, or both halves of its escape"
            yield Finding("lone_surrogate", path, "holds half of a \\ud8xx\\udcxx pair", remedy)


def _could_be_deep(raw: bytes) -> bool:
    return raw.count(b"{") + raw.count(b"[") > MAX_DEPTH


def _too_deep(value: Any) -> bool:
    # level by level: quick where a row has millions of lists
    level = [value]
    for _ in range(MAX_DEPTH):
        children = (child for item in level for child in (item.values() if isinstance(item, dict) else item))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return False
    return True
