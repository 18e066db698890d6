"""Filters such as `satisfaction_score >= 4 and language == "en"`: comparisons, and nothing else.

Both Python's and SQL's spelling are understood (`==` and `=`, `!=` and `<>`, `is null`, `in (…)`). A comparison with a
value that is missing is false. A cell of text that is compared with a number is read as a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.ingest.domain.mining.left_out import LeftOut
from services.ingest.domain.mining.records import Record, getter, require, text_of
from shared.errors import InputError

PARAM = "source.filter"
MOST_DEPTH = 32
MOST_CHARS = 2000

Value = Callable[[Record], Any]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])"
    r"|(?P<text>'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\")"
    r"|`(?P<quoted>[^`]+)`"
    r"|(?P<name>[^\W\d][\w.]*)"
    r"|(?P<mark><=|>=|<>|!=|==|=|<|>|\(|\)|\[|\]|,|-))"
)
_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "length": (1, lambda value: None if value is None else len(text_of(value))),
    "lower": (1, lambda value: None if value is None else text_of(value).lower()),
    "contains": (2, lambda value, part: text_of(part).lower() in text_of(value).lower()),
    "starts_with": (2, lambda value, part: text_of(value).lower().startswith(text_of(part).lower())),
    "ends_with": (2, lambda value, part: text_of(value).lower().endswith(text_of(part).lower())),
}
_SAME = {"len": "length", "startswith": "starts_with", "endswith": "ends_with"}
_WORDS = {"true": True, "false": False, "null": None, "none": None}
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_RELATIONS = {"=": "==", "<>": "!="}
_CLOSING = {"(": ")", "[": "]"}


class Filter:
    """A filter over rows with these columns."""

    def __init__(self, text: str, columns: list[str]) -> None:
        """Read the filter.

        Raises:
            InputError: it is none, or names a column or a function that there is not.
        """
        self.text = text
        parser = _Parser(text, columns)
        self._keeps = parser.filter()
        self._used = list(parser.used.values())

    def silent(self, record: Record) -> bool:
        """Whether a row has nothing in any of the filter's columns."""
        return all(_missing(read(record)) for read in self._used)

    def keeps(self, record: Record) -> bool:
        """Whether a row meets the filter.

        Raises:
            LeftOut: the row has a value that cannot be compared.
        """
        return bool(self._keeps(record))


def refused(message: str) -> InputError:
    return InputError("invalid_filter", f"{PARAM}: {message}", PARAM)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    if len(text) > MOST_CHARS:
        raise refused(f"it has more than {MOST_CHARS} characters")
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            rest = text[at:].strip()
            raise refused(
                f"{rest[:20]!r} is not understood; a filter compares columns with values, such as "
                'satisfaction_score >= 4 and language == "en"; names with other characters go into `backticks`'
            )
        kind = match.lastgroup or ""
        found.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
    return found


class _Parser:
    def __init__(self, text: str, columns: list[str]) -> None:
        self._tokens = _tokens(text)
        self._columns = columns
        self._at = 0
        self._depth = 0
        self.used: dict[str, Value] = {}
        """How each column is read that the filter names."""

    def filter(self) -> Value:
        if not self._tokens:
            raise refused("it is empty")
        found = self._any()
        if self._at < len(self._tokens):
            raise refused(f"{self._tokens[self._at].text!r} is not expected here; join comparisons with and, or")
        return found

    # --- tokens

    def _next(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, *words: str) -> str | None:
        """Take the next token if it is one of these marks or words."""
        token = self._next()
        if token is None or token.kind not in ("name", "mark") or token.text.lower() not in words:
            return None
        self._at += 1
        return token.text.lower()

    def _need(self, mark: str) -> None:
        if not self._take(mark):
            token = self._next()
            where = f"before {token.text!r}" if token else "at the end"
            raise refused(f"{mark!r} is missing {where}")

    # --- what is true or not

    def _any(self) -> Value:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise refused("it is nested too deeply")
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else lambda record: any(part(record) for part in parts)

    def _all(self) -> Value:
        parts = [self._negated()]
        while self._take("and"):
            parts.append(self._negated())
        return parts[0] if len(parts) == 1 else lambda record: all(part(record) for part in parts)

    def _negated(self) -> Value:
        negations = 0
        while self._take("not"):
            negations += 1
        inner = self._comparison()
        return (lambda record: not inner(record)) if negations % 2 else inner

    def _comparison(self) -> Value:
        if self._take("("):
            inner = self._any()
            self._need(")")
            return inner
        left, name = self._value()
        if self._take("is"):
            negated = bool(self._take("not"))
            if not self._take("null", "none"):
                raise refused("after `is` comes null or not null")
            return lambda record: _missing(left(record)) is not negated
        negated = bool(self._take("not"))
        if self._take("in"):
            return self._member(left, name, negated)
        if negated:
            raise refused("after a value, `not` is only understood in `not in`")
        mark = self._take("<=", ">=", "<>", "!=", "==", "=", "<", ">")
        if mark is None:
            return lambda record: _truth(left(record), name)
        right, other = self._value()
        relation = _RELATIONS.get(mark, mark)
        return lambda record: _compare(left(record), relation, right(record), name or other)

    def _member(self, left: Value, name: str, negated: bool) -> Value:
        opening = self._take("(", "[")
        if opening is None:
            raise refused('after `in` comes a list, such as language in ("en", "de")')
        values = [self._value()[0]]
        while self._take(","):
            values.append(self._value()[0])
        self._need(_CLOSING[opening])

        def member(record: Record) -> bool:
            value = left(record)
            if _missing(value):
                return False
            return any(_compare(value, "==", each(record), name) for each in values) is not negated

        return member

    # --- values

    def _value(self) -> tuple[Value, str]:
        """A value, and the name of the column that it is; empty: none."""
        token = self._next()
        if token is None:
            raise refused("it ends too early: a value is missing at the end")
        self._at += 1
        if token.text == "-" and (number := self._next()) and number.kind == "number":
            self._at += 1
            negative = -float(number.text)
            return lambda record: negative, ""
        if token.kind == "number":
            value = float(token.text)
            return lambda record: value, ""
        if token.kind == "text":
            quote = token.text[0]
            text = re.sub(r"\\(.)", r"\1", token.text[1:-1].replace(quote * 2, quote))
            return lambda record: text, ""
        if token.kind == "quoted":
            return self._column(token.text)
        if token.kind != "name":
            raise refused(f"{token.text!r} is not expected here; a column or a value is")
        if self._take("("):
            return self._call(token.text), ""
        word = token.text.lower()
        if word in _WORDS:
            constant = _WORDS[word]
            return lambda record: constant, ""
        return self._column(token.text)

    def _column(self, name: str) -> tuple[Value, str]:
        column = require(name, self._columns, PARAM)
        return self.used.setdefault(column, getter(column)), column

    def _call(self, name: str) -> Value:
        word = _SAME.get(name.lower(), name.lower())
        if word not in _FUNCTIONS:
            raise refused(f"there is no function {name}; there are {', '.join(_FUNCTIONS)}")
        wanted, function = _FUNCTIONS[word]
        given = [self._value()[0]]
        while self._take(","):
            given.append(self._value()[0])
        self._need(")")
        if len(given) != wanted:
            raise refused(f"{word} takes {wanted} value{'s' if wanted > 1 else ''}, not {len(given)}")
        return lambda record: function(*(each(record) for each in given))


# --- comparing ------------------------------------------------------------------------------------------------------


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _compare(left: Any, relation: str, right: Any, name: str) -> bool:
    if left is None or right is None:  # `column == null`
        same = _missing(left) and _missing(right)
        return same if relation == "==" else not same if relation == "!=" else False
    if isinstance(left, bool) or isinstance(right, bool):
        return _related(_truth(left, name), relation, _truth(right, name))
    if isinstance(left, int | float) or isinstance(right, int | float):
        if _missing(left) or _missing(right):
            return False
        return _related(number(left, name), relation, number(right, name))
    if relation not in ("==", "!=") and (_missing(left) or _missing(right)):
        return False
    return _related(text_of(left), relation, text_of(right))


def _related(left: Any, relation: str, right: Any) -> bool:
    match relation:
        case "==":
            return bool(left == right)
        case "!=":
            return bool(left != right)
        case "<":
            return bool(left < right)
        case "<=":
            return bool(left <= right)
        case ">":
            return bool(left > right)
        case _:
            return bool(left >= right)


def number(value: Any, name: str) -> float:
    """A value as a number; a decimal comma is understood.

    Raises:
        LeftOut: it is none.
    """
    if isinstance(value, float):
        return value
    text = text_of(value)
    if re.fullmatch(r"[+-]?\d+,\d{1,2}", text):
        text = text.replace(",", ".")
    try:
        found = float(text) if len(text) < 64 else None
    except ValueError:
        found = None
    if found is None:
        raise LeftOut("unfit", f"{name or 'a value'} is {_shown(text)}, which is no number")
    return found


def _truth(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return value
    if _missing(value):
        return False
    found = _TRUTHS.get(text_of(value).lower())
    if found is None:
        raise LeftOut("unfit", f"{name or 'a value'} is {_shown(text_of(value))}, which is neither true nor false")
    return found


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
