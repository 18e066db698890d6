"""Data in answers that nobody should be told: what `shared.privacy` knows, and what only looks like it.

An answer is judged by what stands in the train split, too, so here much may be a secret: any long number, any random
string. The validator, which judges rows by themselves, needs the stricter forms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from shared.privacy import NAMES, SECRET, find_personal, find_secrets

RANDOM = "a key"
ALWAYS = frozenset({RANDOM, *(NAMES[kind] for kind in (*SECRET, "card", "iban", "ssn"))})
"""Kinds that are secret however often they stand in the train split. The others may be the address or number of the
house, which all its answers give: see `few`."""

_DIGITS = re.compile(
    # groups of at least two digits, or a country code of one: no decimals, versions, ISBNs and lists of numbers
    r"(?<![\w.,+-])(?:\+\d{1,3}[ -]?)?(?:\(\d{2,5}\)[ -]?)?\d{2,19}(?:[ /-]\d{2,19}){0,6}(?![\w-]|[.,]\d)"
    r"|(?<![\w.])\d{3}\.\d{3}\.\d{4}(?![\w.])"
)
_LEAST_DIGITS, _MOST_DIGITS = 9, 19
_RANDOM = re.compile(
    r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{8,}"
    r"|(?<!\w)(?=[a-z]*\d)(?=\d*[a-z])[0-9a-f]{32,}(?!\w)"
    r"|(?<!\w)(?=\w*\d)(?=\w*[a-z])(?=\w*[A-Z])[A-Za-z0-9_+]{20,}={0,2}"
)
_NAMED = re.compile(
    r"\b(?:pass(?:word|code|phrase)?|passwort|pin|secret|token|credentials?|api[ _-]?key"
    r"|(?:access|door|vault|secret) code)"
    r"\b[^\n:=]{0,30}?(?:\s(?:is|ist|es|est)\s|[:=])\s*[\"'`]?((?=\S*\d)[^\s\"'`,;]{4,64})",
    re.IGNORECASE,
)


def secrets_in(text: str) -> dict[str, str]:
    """What is found, each with its kind: as it is written, without what ends a sentence."""
    found = {text[span.start : span.end]: NAMES[span.kind] for span in chain(find_personal(text), find_secrets(text))}
    for match in _RANDOM.finditer(text):
        _add(found, match[0].rstrip(".-"), RANDOM)
    for match in _NAMED.finditer(text):
        _add(found, match[1].rstrip(".!?)"), NAMES["password"])
    for match in _DIGITS.finditer(text):
        if _LEAST_DIGITS <= sum(char.isdigit() for char in match[0]) <= _MOST_DIGITS:
            _add(found, match[0], "a phone or account number")
    return found


def _add(found: dict[str, str], written: str, kind: str) -> None:
    """Add what is not a part of something that is found already."""
    if not any(written in known for known in found):
        found[written] = kind


def few(rows: int) -> int:
    """In so many train rows a datum may stand and still be somebody's own: three, or one in a hundred."""
    return max(3, rows // 100)


def strings_in(value: Any) -> Iterator[str]:
    """All strings in a row, names of keys apart."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
