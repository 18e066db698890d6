"""Data in answers that nobody should be told: addresses, numbers, keys and passwords, found by their form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

ALWAYS = frozenset({"a card number", "an IBAN", "a key", "a password"})
"""Kinds that are secret however often they stand in the train split. The others may be the address or number of the
house, which all its answers give: see `few`."""

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_DIGITS = re.compile(
    # groups of at least two digits, or a country code of one: no decimals, versions, ISBNs and lists of numbers
    r"(?<![\w.,+-])(?:\+\d{1,3}[ -]?)?(?:\(\d{2,5}\)[ -]?)?\d{2,19}(?:[ /-]\d{2,19}){0,6}(?![\w-]|[.,]\d)"
    r"|(?<![\w.])\d{3}\.\d{3}\.\d{4}(?![\w.])"
)
_LEAST_DIGITS = 9
_KEY = re.compile(
    r"\b(?:(?:sk|pk|rk)[-_][A-Za-z0-9_-]{8,}|gh[pousr]_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{12,}|AIza[\w-]{20,}"
    r"|xox[abprs]-[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]{5,}(?:\.[\w-]*)?)"
    r"|(?<!\w)(?=[a-z]*\d)(?=\d*[a-z])[0-9a-f]{32,}(?!\w)"
    r"|(?<!\w)(?=\w*\d)(?=\w*[a-z])(?=\w*[A-Z])[A-Za-z0-9_+]{20,}={0,2}"
)
_PASSWORD = re.compile(
    r"\b(?:pass(?:word|code|phrase)?|passwort|pin|secret|token|credentials?|api[ _-]?key"
    r"|(?:access|door|vault|secret) code)"
    r"\b[^\n:=]{0,30}?(?:\s(?:is|ist|es|est)\s|[:=])\s*[\"'`]?((?=\S*\d)[^\s\"'`,;]{4,64})",
    re.IGNORECASE,
)


def secrets_in(text: str) -> dict[str, str]:
    """What is found, each with its kind: as it is written, without what ends a sentence."""
    found: dict[str, str] = {}
    for pattern, kind in ((_EMAIL, "an e-mail address"), (_KEY, "a key")):
        for match in pattern.finditer(text):
            found.setdefault(match.group(0).rstrip(".-"), kind)
    for match in _PASSWORD.finditer(text):
        found.setdefault(match.group(1).rstrip(".!?)"), "a password")
    for match in _IBAN.finditer(text):
        if _is_iban(match.group(0)):
            found[match.group(0)] = "an IBAN"
    for match in _DIGITS.finditer(text):
        written = match.group(0)
        digits = re.sub(r"\D", "", written)
        if not _LEAST_DIGITS <= len(digits) <= 19:
            continue
        card = 13 <= len(digits) <= 19 and _luhn(digits)
        if not any(written in known for known in found):
            found[written] = "a card number" if card else "a phone or account number"
    return found


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


def _luhn(digits: str) -> bool:
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


def _is_iban(text: str) -> bool:
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1
