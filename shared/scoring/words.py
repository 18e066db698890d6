"""Text as words, in any script.

The tokenizer of the `rouge_score` package keeps only `[a-z0-9]`, so every Chinese answer scores 0, and accents split
words. This one gives exactly the same words for ASCII text. Beyond that, letters and digits of any alphabet form words,
with their combining marks. Scripts that are written without spaces (Han, kana, Thai, Lao, Khmer, Burmese) give one word
per character. Text without any word ("+", an emoji) gives its characters.
"""

from __future__ import annotations

import re
import unicodedata

_ASCII_WORD = re.compile(r"[a-z0-9]+")
MAX_MARKS = 30
"""Marks above or below one letter. No language has more than a few."""
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x20000, 0x3FFFF),  # Han, further extensions
)


def words(text: str) -> list[str]:
    """The words of a text in order, in lower case."""
    text = normalized(text).lower()
    found = _ASCII_WORD.findall(text) if text.isascii() else _unicode_words(text)
    return found or [character for character in text if not character.isspace()]


def normalized(text: str) -> str:
    """The text in NFKC.

    Sorting the marks above one letter takes time with the square of their number, and nothing else in the process runs
    meanwhile. So marks beyond `MAX_MARKS` are normalized as if they stood alone, as the Stream-Safe Text Format of
    Unicode (UAX 15) does.
    """
    if text.isascii():
        return text
    pieces, start, marks = [], 0, 0
    for place, character in enumerate(text):
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > MAX_MARKS:
            pieces.append(unicodedata.normalize("NFKC", text[start:place]))
            start, marks = place, 1
    pieces.append(unicodedata.normalize("NFKC", text[start:]))
    return "".join(pieces)


def _unicode_words(text: str) -> list[str]:
    found: list[str] = []
    open_word = False
    for character in text:
        category = unicodedata.category(character)[0]
        if category == "M" and found:
            found[-1] += character
        elif category in "LN" and not _unspaced(character):
            if open_word:
                found[-1] += character
            else:
                found.append(character)
            open_word = True
        else:
            if category in "LN":
                found.append(character)
            open_word = False
    return found


def _unspaced(character: str) -> bool:
    code = ord(character)
    return any(first <= code <= last for first, last in _UNSPACED)
