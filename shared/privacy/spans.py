"""Places in a text that hold something private, their placeholders, and how they may be shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["email", "phone", "card", "iban", "ip", "ssn", "key", "token", "private_key", "password"]

NAMES: dict[Kind, str] = {
    "email": "an e-mail address",
    "phone": "a phone number",
    "card": "a card number",
    "iban": "an IBAN",
    "ip": "an IP address",
    "ssn": "a social security number",
    "key": "an API key",
    "token": "a token",
    "private_key": "a private key",
    "password": "a password",
}
"""What a kind is called in a sentence."""

PERSONAL: frozenset[Kind] = frozenset({"email", "phone", "card", "iban", "ip", "ssn"})
SECRET: frozenset[Kind] = frozenset(NAMES) - PERSONAL


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """`text[start:end]` is something of this kind."""

    start: int
    end: int
    kind: Kind

    @property
    def placeholder(self) -> str:
        """`[EMAIL]`: what stands in a redacted text."""
        return f"[{self.kind.upper()}]"


_DIGITS = b"0123456789"


def has_digit(text: str) -> bool:
    """Whether a text has one of 0 to 9: a cheap test before costly ones."""
    if not text.isascii():
        return any(map(text.__contains__, "0123456789"))
    data = text.encode()
    return len(data.translate(None, _DIGITS)) < len(data)


def disjoint(spans: Iterable[Span]) -> list[Span]:
    """The spans in their order; of two that overlap, the longer one."""
    kept: list[Span] = []
    for span in sorted(spans):
        if not kept or kept[-1].end <= span.start:
            kept.append(span)
        elif span.end - span.start > kept[-1].end - kept[-1].start:
            kept[-1] = span
    return kept


def redact(text: str, spans: Iterable[Span]) -> str:
    """The text with a placeholder for each span. The spans are disjoint and in order, as `find_*` gives them."""
    parts: list[str] = []
    end = 0
    for span in spans:
        parts += [text[end : span.start], span.placeholder]
        end = span.end
    return "".join(parts) + text[end:]


def masked(text: str, span: Span) -> str:
    """Enough of the value to find it in its line, and too little to use it: `j…@….org`, `…11 (16 characters)`."""
    value = text[span.start : span.end]
    if span.kind == "email":
        return f"{value[0]}…@….{value.rpartition('.')[2]}"
    if span.kind in PERSONAL:
        return f"…{value[-2:]} ({len(value)} characters)"
    # the beginning of a key names its issuer
    return f"{value[:3]}… ({len(value)} characters)" if len(value) >= 16 else f"… ({len(value)} characters)"
