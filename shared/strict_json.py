"""JSON that every reader understands alike: RFC 8259 in UTF-8, with limits.

Python's own reader takes `NaN` and `Infinity`, makes infinity of 1e999, reads half of a surrogate pair that no UTF-8
can hold, and ends with RecursionError in deep brackets. Whoever stores or passes on such a value breaks the next one.
Whatever a stranger sends is read with `loads`. A value that comes from elsewhere (YAML, say) is tried with `check`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

MAX_DEPTH = 100
"""Levels of lists and objects. Tool schemas nest about ten deep; readers and templates recurse."""
MAX_INTEGER = 2**64
"""JSON readers disagree about whole numbers beyond 64 bits: some round them, some refuse them."""
MAX_VALUES = 1_000_000
"""Values in lists and objects. A prompt of a million tokens, as numbers, has so many."""
MAX_CONTAINERS = 100_000
"""Lists and objects. Each takes up to forty times as much memory as its two bytes in the text."""
_MAX_PATH = 120  # characters of a path in a message


class InvalidJson(ValueError):
    """It is not JSON, or no JSON that every reader would take. The message says what and where, is printable, and
    quotes only names of fields.

    `field` is the path of the value (`messages[2].temperature`); empty where it is the whole, or cannot be known.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


def loads(data: bytes | str) -> Any:
    """Read one JSON value. Of a key that an object has twice the last counts.

    About as fast as `json.loads`: only what could be wrong is looked at again.

    Raises:
        InvalidJson: see there.
    """
    text = _text(data)
    _bounded(text)
    try:
        value = _FAST.decode(text)
    except RecursionError:
        raise InvalidJson(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise _not_json(error) from None
    except _FlawFound:
        raise _named(text) from None
    deep, escaped = text.count("[") + text.count("{") > MAX_DEPTH, "\\ud" in text or "\\uD" in text
    if (deep or escaped) and not _sound(value):
        check(value)
    return value


def check(value: Any) -> None:
    """Make sure that `value` can be written as JSON, and read back by `loads`.

    Raises:
        InvalidJson: see there.
    """
    for path, item in _walk(value):
        flaw = _flaw(item)
        if flaw is not None:
            raise _at(path, flaw)


_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep; flatten it"


def _text(data: bytes | str) -> str:
    if isinstance(data, str):
        try:
            data.encode()
        except UnicodeEncodeError as error:
            raise InvalidJson(f"character {error.start + 1} is half of a surrogate pair, which is no text") from None
        return data
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise InvalidJson(f"byte {error.start + 1} (0x{data[error.start]:02x}) is not UTF-8 text") from None


def _not_json(error: json.JSONDecodeError) -> InvalidJson:
    if not error.doc.strip():
        return InvalidJson("it is empty")
    return InvalidJson(f"line {error.lineno}, column {error.colno}: {error.msg}")


# --- how many values, known before any is made ------------------------------------------------------------------------

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def _bounded(text: str) -> None:
    """Raise InvalidJson if there are too many values. What is in strings is looked at only if it could matter."""
    if len(text) <= MAX_CONTAINERS:
        return
    if text.count(",") <= MAX_VALUES and text.count("[") + text.count("{") <= MAX_CONTAINERS:
        return
    values = containers = start = number = 0
    for number, string in enumerate(_STRING.finditer(text)):
        end = string.start()
        values += text.count(",", start, end)
        containers += text.count("[", start, end) + text.count("{", start, end)
        start = string.end()
        # names and values; of strings with nothing between them there may be more, which is no JSON
        if values > MAX_VALUES or containers > MAX_CONTAINERS or number > 2 * MAX_VALUES:
            break
    else:
        values += text.count(",", start)
        containers += text.count("[", start) + text.count("{", start)
    if containers > MAX_CONTAINERS:
        raise InvalidJson(f"it holds more than {MAX_CONTAINERS:,} lists and objects")
    if values > MAX_VALUES or number > 2 * MAX_VALUES:
        raise InvalidJson(f"it holds more than {MAX_VALUES:,} values")


# --- numbers: the decoder's hooks do not know the path, so a text with a flaw is decoded again and walked -------------


class _FlawFound(Exception):
    """The fast decoder met a number that is refused."""


class _Flaw:
    """Stands for such a number in the tree of the second decoding."""

    def __init__(self, text: str) -> None:
        self.text = text


def _decoder(on_flaw: Callable[[str], Any]) -> json.JSONDecoder:
    def constant(name: str) -> Any:
        return on_flaw(f"is {name}, which is not JSON; use a number or null")

    def integer(digits: str) -> Any:
        # the length first: Python's int() is slow with very many digits, or refuses them
        if len(digits) > 21 or abs(value := int(digits)) >= MAX_INTEGER:
            return on_flaw(_LARGE)
        return value

    def fraction(digits: str) -> Any:
        value = float(digits)
        return on_flaw(_BEYOND) if math.isinf(value) else value

    return json.JSONDecoder(parse_constant=constant, parse_int=integer, parse_float=fraction)


_LARGE = "is a whole number of more than 64 bits; write it as a string"
_BEYOND = "is a number beyond 1e308; write it as a string"


def _raise(_: str) -> Any:
    raise _FlawFound


_FAST = _decoder(_raise)
_MARKING = _decoder(_Flaw)


def _named(text: str) -> InvalidJson:
    try:
        value = _MARKING.decode(text)
    except RecursionError:
        return InvalidJson(_TOO_DEEP)
    except json.JSONDecodeError as error:
        return _not_json(error)
    try:
        check(value)
    except InvalidJson as error:
        return error
    raise AssertionError("the second decoding found no flaw")


def _flaw(item: Any) -> str | None:
    """What is wrong with a value that is no container."""
    match item:
        case _Flaw():
            return item.text
        case str():
            if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
                return "holds half of a \\ud8xx\\udcxx pair; write the character itself, or both halves of its escape"
        case bool() | None:
            pass
        case int():
            return None if abs(item) < MAX_INTEGER else _LARGE
        case float():
            return None if math.isfinite(item) else f"is {item}, which is not JSON; use a number or null"
        case _:
            return f"is of the type {type(item).__name__}, which JSON does not have"
    return None


def _sound(value: Any) -> bool:
    """Whether the depth and the strings of a decoded value are right. Without paths, level by level, so that millions
    of values in one request do not take seconds."""
    level = [value]
    for _ in range(MAX_DEPTH):
        texts = [item for item in level if type(item) is str and not item.isascii()]
        objects = [item for item in level if type(item) is dict]
        texts += [key for item in objects for key in item if not key.isascii()]
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:
            return False
        level = [child for item in level if type(item) is list for child in item]
        level += [child for item in objects for child in item.values()]
        if not level:
            return True
    return False  # too deep, or as deep as may be: `check` tells


# --- walking, without recursion ---------------------------------------------------------------------------------------


def _walk(value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every key, and every value that is no container, with its path, in order.

    Raises:
        InvalidJson: it is nested too deeply.
    """
    stack: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, dict | list | tuple):
            if len(path) >= MAX_DEPTH:
                raise InvalidJson(_TOO_DEEP, _written(path))
            if isinstance(item, dict):
                for key in item:
                    yield (*path, key), key if isinstance(key, str) else _Flaw("has a name that is no string")
                stack.extend(((*path, key), item[key]) for key in reversed(item))
            else:
                stack.extend(((*path, index), item[index]) for index in range(len(item) - 1, -1, -1))
        else:
            yield path, item


def _at(path: tuple[Any, ...], flaw: str) -> InvalidJson:
    where = _written(path)
    return InvalidJson(f"{where or 'the value'} {flaw}", where)


def _written(path: tuple[Any, ...]) -> str:
    """`messages[2].role`, printable and of limited length."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    text = "".join(parts).removeprefix(".")
    cut = text if len(text) <= _MAX_PATH else text[: _MAX_PATH - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
