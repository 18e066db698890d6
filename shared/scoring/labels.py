"""Whether answers are labels of a classification, or free text; and when two answers are the same label."""

from __future__ import annotations

import unicodedata
from collections import Counter

MAX_LABELS = 250
MAX_WORDS = 5
MAX_CHARS = 200
MIN_ROWS_EACH = 5
FEW = 20
"""Up to so many different answers, short and often repeated, are labels without a further question."""
MAX_SINGLE = 0.05
"""Of more labels than that, the largest share of rows whose answer no other row has. It is what can be expected of
answers that were never seen (Good 1953): a closed set of labels is seen whole, free text goes on and on."""
RULE = (
    f"answers are labels when there are 2 to {MAX_LABELS} different ones of at most {MAX_WORDS} words each, "
    f"and on average at least {MIN_ROWS_EACH} rows for each; of more than {FEW}, at most {MAX_SINGLE:.0%} of the rows "
    "may have an answer that no other row has"
)

_KEPT = "+-#@&%/\\"  # "C", "C#" and "C++" are three labels, and so are "5" and "5%"
_ASCII_SURROUNDS = "!\"'()*,.:;?[]_`{} "
"""The ASCII characters for which `_surrounds` is true, after white space has become spaces."""


def label_of(text: str) -> str:
    """The label in a uniform spelling: the Unicode form of characters, case, white space and the punctuation of any
    script around it do not matter. Text that is only punctuation is kept, because it may be the label itself."""
    if text.isascii():
        squeezed = " ".join(text.casefold().split())
        return squeezed.strip(_ASCII_SURROUNDS) or squeezed
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    squeezed = " ".join("".join(mark for mark in folded if unicodedata.category(mark) != "Cf").split())
    start, end = 0, len(squeezed)
    while start < end and _surrounds(squeezed[start]):
        start += 1
    while end > start and _surrounds(squeezed[end - 1]):
        end -= 1
    return squeezed[start:end] or squeezed


def short_label_of(answer: str) -> str | None:
    """The label that an answer may be; None: it is empty, or too long for one."""
    if len(answer) > MAX_CHARS or len(answer.split()) > MAX_WORDS:
        return None
    return label_of(answer) or None


def are_labels(answers: Counter[str]) -> bool:
    """Whether short answers are labels, by how often each stands in a dataset: see `RULE`."""
    if not 2 <= len(answers) <= MAX_LABELS or answers.total() < MIN_ROWS_EACH * len(answers):
        return False
    single = sum(count == 1 for count in answers.values())
    return len(answers) <= FEW or single <= MAX_SINGLE * answers.total()


def _surrounds(character: str) -> bool:
    """White space, punctuation, or a backtick, which Unicode counts among the symbols."""
    if character in _KEPT:
        return False
    return character.isspace() or character == "`" or unicodedata.category(character).startswith("P")
