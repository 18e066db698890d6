"""The words of a text, which all figures about words are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORD = re.compile(r"\w+")
ASCII_WORDS = bytes(
    [ord(char.lower()) if char.isalnum() or char == "_" else 32 for char in map(chr, range(128))] + [*range(128, 256)]
)
"""What becomes of each byte: small letters, and spaces between words. Bytes outside ASCII are left as they are."""
_LONG_WORD = 24
MAX_WORDS = 4000
"""Words of a text that are read. Books that agree in so many are near-duplicates."""


def words_of(text: str) -> list[str]:
    """The words in small letters. Scripts without spaces give pairs of characters instead."""
    text = text[: MAX_WORDS * 12]
    if text.isascii():
        return text.encode().translate(ASCII_WORDS).decode().split()[:MAX_WORDS]  # faster than the expression
    words = _WORD.findall(text.casefold())[:MAX_WORDS]
    if any(len(word) > _LONG_WORD for word in words):
        words = [piece for word in words for piece in _pieces(word)]
    return words


def _pieces(word: str) -> Iterable[str]:
    if len(word) <= _LONG_WORD:
        return (word,)
    return (word[at : at + 2] for at in range(len(word) - 1))
