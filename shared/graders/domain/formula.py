"""The formula of a multi grader: `calculate_output`.

    0.7 * exact + 0.3 * min(style, 1 - abs(length)) ^ 2

Numbers, names of graders, `+ - * / ^`, parentheses, and the functions `min max abs floor ceil exp sqrt log`. Nothing
else: it is no Python, and nothing of it is run as code. `^` binds strongest and to the right, so `-2^2` is -4. All
numbers are floating-point, so no power takes long.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

MAX_CHARS = 2000
MAX_DEPTH = 30
"""Levels of parentheses, signs and powers."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
ONE: Mapping[str, Callable[[float], float]] = {
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
MANY: Mapping[str, Callable[[list[float]], float]] = {"min": min, "max": max}
FUNCTIONS = (*MANY, *ONE)
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>{NAME.pattern})|(?P<sign>[-+*/^(),]))",
    re.ASCII,
)


class BadFormula(ValueError):
    """The text is no formula. The message says what and where."""


class NoResult(ArithmeticError):
    """The formula has no finite value for these scores: a division by zero, say."""


@dataclass(frozen=True)
class Formula:
    """A formula that was read. `program` is in postfix order: numbers, names, and operators with their operands'
    number."""

    program: tuple[float | str | tuple[str, int], ...]

    @property
    def names(self) -> frozenset[str]:
        """The graders whose scores it uses."""
        return frozenset(step for step in self.program if isinstance(step, str))

    def value(self, scores: Mapping[str, float]) -> float:
        """The value of the formula for the scores of the graders, which must hold all its `names`.

        Raises:
            NoResult: see there.
        """
        stack: list[float] = []
        for step in self.program:
            if isinstance(step, tuple):
                operator, count = step
                operands = stack[-count:]
                del stack[-count:]
                stack.append(_finite(operator, operands))
            else:
                stack.append(scores[step] if isinstance(step, str) else step)
        return stack[0]


def read(text: str, names: Collection[str]) -> Formula:
    """Read a formula that may use the graders `names`.

    Raises:
        BadFormula: see there.
    """
    if len(text) > MAX_CHARS:
        raise BadFormula(f"it has {len(text):,} characters, the most are {MAX_CHARS:,}: make it shorter")
    return _Reader(text, names).formula()


def _finite(operator: str, operands: list[float]) -> float:
    try:
        value = float(_apply(operator, operands))
    except (ArithmeticError, ValueError) as error:
        raise NoResult(f"{operator} of {', '.join(f'{value:g}' for value in operands)}") from error
    if not math.isfinite(value):
        raise NoResult(f"{operator} of {', '.join(f'{value:g}' for value in operands)}")
    return value


def _apply(operator: str, operands: list[float]) -> float:
    if operator in MANY:
        return MANY[operator](operands)
    if operator in ONE:
        return ONE[operator](operands[0])
    if len(operands) == 1:
        return -operands[0] if operator == "-" else operands[0]
    left, right = operands
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left / right
        case _:
            return math.pow(left, right)  # `**` would make a complex number of a negative base


class _Reader:
    """Reads by recursive descent, to a limited depth."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        self._names = names
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0
        self._program: list[float | str | tuple[str, int]] = []

    def formula(self) -> Formula:
        self._sum()
        if self._at < len(self._tokens):
            raise BadFormula(f"{self._here()} is not expected there")
        return Formula(tuple(self._program))

    def _next(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None

    def _here(self) -> str:
        if self._at == len(self._tokens):
            return "its end"
        _, text, place = self._tokens[self._at]
        return f"'{text[:40]}' at character {place + 1}"

    def _take(self, *wanted: str) -> str | None:
        """The next sign, if it is one of `wanted`."""
        found = self._next()
        if found not in wanted:
            return None
        self._at += 1
        return found

    def _sum(self) -> None:
        self._product()
        while sign := self._take("+", "-"):
            self._product()
            self._program.append((sign, 2))

    def _product(self) -> None:
        self._signed()
        while sign := self._take("*", "/"):
            if self._next() == "*":
                raise BadFormula("'**' is no operator: write a power as '^'")
            self._signed()
            self._program.append((sign, 2))

    def _signed(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadFormula(f"it is nested more than {MAX_DEPTH} levels deep: write it flatter")
        if sign := self._take("+", "-"):
            self._signed()
            self._program.append((sign, 1))
        else:
            self._value()
            if self._take("^"):
                self._signed()
                self._program.append(("^", 2))
        self._depth -= 1

    def _value(self) -> None:
        if self._at == len(self._tokens):
            raise BadFormula("it ends where a number or the name of a grader is expected")
        kind, text, _ = self._tokens[self._at]
        if kind == "number":
            number = float(text)
            if not math.isfinite(number):
                raise BadFormula(f"{self._here()} is too large a number")
            self._program.append(number)
            self._at += 1
        elif kind == "name":
            self._name(text)
        elif self._take("("):
            self._sum()
            self._close()
        else:
            raise BadFormula(f"{self._here()} stands where a number or the name of a grader is expected")

    def _name(self, name: str) -> None:
        here = self._here()
        self._at += 1
        if name in FUNCTIONS:
            if not self._take("("):
                raise BadFormula(f"{here} is a function: write {name}(…)")
            self._sum()
            count = 1
            while self._take(","):
                self._sum()
                count += 1
            self._close()
            if name in ONE and count != 1:
                raise BadFormula(f"{here} has {count} arguments: {name} takes one")
            self._program.append((name, count))
        elif name in self._names:
            self._program.append(name)
        else:
            graders = ", ".join(sorted(self._names)[:20])
            raise BadFormula(f"{here} is no grader and no function: the graders are {graders}")

    def _close(self) -> None:
        if not self._take(")"):
            raise BadFormula(f"a ')' is missing before {self._here()}")


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """Kind, text and place of all that the formula consists of."""
    found = []
    place, end = 0, len(text.rstrip())
    while place < end:
        token = _TOKEN.match(text, place)
        if token is None:
            rest = text[place:].lstrip()
            allowed = f"numbers, names of graders, + - * / ^ ( ) , and {' '.join(FUNCTIONS)}"
            raise BadFormula(
                f"{rest[:1]!r} at character {len(text) - len(rest) + 1} is not allowed; it takes {allowed}"
            )
        kind = str(token.lastgroup)
        found.append((kind, token[kind], token.start(kind)))
        place = token.end()
    return found
