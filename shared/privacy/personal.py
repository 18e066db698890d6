"""E-mail addresses, phone numbers, card numbers, IBANs, IP addresses and US social security numbers in a text.

Every kind has a cheap test before the careful one, because most texts hold none: an `@`, or a run of digits. What has
a check digit (cards by Luhn, IBANs by ISO 7064) must satisfy it. What has none needs its usual form, or a word that
says what it is. So order numbers, dates, prices, versions, ISBNs and UUIDs are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from stdnum import iban, luhn
from stdnum.us import ssn

from shared.privacy.phones import phones
from shared.privacy.spans import Span, disjoint, has_digit

# The cheap test: six characters or more from digit to digit, without a letter between them.
_DIGITS = re.compile(r"[0-9][0-9 .()/\-\u00a0\u202f\u2010\u2011]{4,60}[0-9]")
_LETTERS_BEFORE = 40
"""How many characters before a number are read for words that say what it is."""


def find_personal(text: str) -> list[Span]:
    """Every place with personal data, in order and disjoint."""
    found: list[Span] = []
    if "@" in text:
        found += _emails(text)
    if has_digit(text) and (first := _DIGITS.search(text)) is not None:
        found += _numbers(text, first)
    if "::" in text or text.count(":") >= 7:
        found += _ipv6(text)
    return disjoint(found) if found else found


# --- e-mail ---------------------------------------------------------------------------------------------------------

_LOCAL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}$")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_][\w-]{0,22}[^\W_]", re.UNICODE)
_NO_ADDRESS = frozenset({"git", "hg", "svn"})
"""Users of repositories, as in `git@host.org:path`."""
_FILES = frozenset(["png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "ts", "py", "html", "md", "json"])
"""Ends of names such as `icon@2x.png`, which are no domains."""


def _emails(text: str) -> Iterator[Span]:
    at = text.find("@")
    while at >= 0:
        # only the characters that an address may have are read, so a long line costs no more than its length
        before = _LOCAL.search(text[max(0, at - 64) : at])
        after = _DOMAIN.match(text, at + 1, at + 256)
        if before and after and after[0].rpartition(".")[2].lower() not in _FILES:
            local = before[0].lstrip(".!#$%&'*+/=?^`{|}~-")
            if local and local.lower() not in _NO_ADDRESS and not local.endswith("."):
                yield Span(at - len(local), after.end(), "email")
        at = text.find("@", at + 1)


# --- numbers --------------------------------------------------------------------------------------------------------

_CARD = re.compile(
    r"(?<![\d.,\w-])"
    r"(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{4,5})"
    r"(?![\w]|[.,-]\d)"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?(?![A-Za-z0-9])")
_IPV4 = re.compile(r"(?<![\d.\w-])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d|-\d)")
_SSN = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
_CARD_WORDS = re.compile(
    r"card|visa|master|amex|american express|karte|carte|tarjeta|cc\b|pan\b|payment|paid|credit|debit", re.I
)
_ID_WORDS = re.compile(
    r"(?:order|invoice|ticket|case|ref(?:erence)?|tracking|shipment|parcel|id|isbn|imei|sku|serial|account|"
    r"bestellung|rechnung|commande|pedido|article|item|#)\W*(?:no|nr|number|num|id|code|nummer|numéro|número)?\W*$",
    re.I,
)
_VERSION_WORDS = re.compile(
    r"(?:\bv|version|release|build|firmware|driver|update|upgrade\w*|section|chapter|§)[\s:.=]*(?:to|is)?\s*$", re.I
)
_ADDRESS_WORDS = re.compile(
    r"\b(?:ip|ipv4|address|host|server|client|ping|dns|login|logged|from|subnet|gateway)\b", re.I
)


def _numbers(text: str, first: re.Match[str]) -> Iterator[Span]:
    """Everything that is made of digits. `first`: the first run of digits."""
    # a run may begin in the middle of an IBAN
    begin = max(0, first.start() - 34)
    yield from _cards(text, begin)
    if "-" in text:
        for match in _SSN.finditer(text, begin):
            if ssn.is_valid(match[0]):
                yield Span(match.start(), match.end(), "ssn")
    for match in _IBAN.finditer(text, begin):
        value = match[0]
        while len(value) >= 15:
            if iban.is_valid(value):
                yield Span(match.start(), match.start() + len(value), "iban")
                break
            # words of capitals may follow it
            value = value[: max(value.rfind(" "), 0)]
    if "." in text:
        for match in _IPV4.finditer(text, begin):
            if _is_ipv4(match[0], text[max(0, match.start() - _LETTERS_BEFORE) : match.start()]):
                yield Span(match.start(), match.end(), "ip")
    for start, end in phones(text, begin):
        yield Span(start, end, "phone")


def _cards(text: str, begin: int) -> Iterator[Span]:
    for match in _CARD.finditer(text, begin):
        digits = re.sub(r"\D", "", match[0])
        if not _issued(digits) or not luhn.is_valid(digits):
            continue
        # one in ten numbers satisfies Luhn by chance
        before = text[max(0, match.start() - _LETTERS_BEFORE) : match.start()]
        if _ID_WORDS.search(before) and not _CARD_WORDS.search(before):
            continue
        yield Span(match.start(), match.end(), "card")


def _issued(digits: str) -> bool:
    """Whether a card network issues numbers of this beginning and length (ISO/IEC 7812)."""
    size, four = len(digits), int(digits[:4])
    if digits[:2] in ("34", "37"):
        return size == 15
    if digits[0] == "4":
        return size in (13, 16, 19)
    if 5100 <= four <= 5599 or 2221 <= four <= 2720:
        return size == 16
    if digits[:2] in ("36", "38") or 3000 <= four <= 3059:
        return size in (14, 16)
    return size >= 16 and (digits[:2] in ("62", "64", "65", "60", "35") or digits[0] == "6")


def _is_ipv4(value: str, before: str) -> bool:
    try:
        address = IPv4Address(value)
    except AddressValueError:
        return False
    if address.is_loopback or address.is_unspecified or value.startswith("255.") or value.endswith(".0"):
        return False  # names of no machine: the own one, masks, networks
    if _VERSION_WORDS.search(before):
        return False
    # 1.2.3.4 is rather a version or a chapter
    return any(int(part) >= 10 for part in value.split(".")) or bool(_ADDRESS_WORDS.search(before))


_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")


def _ipv6(text: str) -> Iterator[Span]:
    for match in _IPV6.finditer(text):
        try:
            address = IPv6Address(match[0])
        except AddressValueError:
            continue
        # `a::b` is C++, and 12::30 no address
        if len(match[0].replace(":", "")) >= 8 and not address.is_loopback:
            yield Span(match.start(), match.end(), "ip")
