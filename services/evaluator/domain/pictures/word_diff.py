"""What changed from one text to another, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal

from shared.events import FrozenModel

MOST_WORDS = 1_500
"""Of each text. Time grows with the product of both."""
_PIECE = re.compile(r"\w+|\s+|[^\w\s]")


class Change(FrozenModel):
    """A piece of text that both have, or only one of them."""

    kind: Literal["same", "gone", "new"]
    text: str


def word_diff(before: str, after: str) -> tuple[Change, ...] | None:
    """The pieces in reading order: what is gone stands before what is new in its place. None: a text is too long."""
    old, new = _PIECE.findall(before), _PIECE.findall(after)
    if max(len(old), len(new)) > 2 * MOST_WORDS:
        return None
    found: list[Change] = []
    for what, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            found.append(Change(kind="same", text="".join(old[i:j])))
            continue
        if i < j:
            found.append(Change(kind="gone", text="".join(old[i:j])))
        if k < m:
            found.append(Change(kind="new", text="".join(new[k:m])))
    return tuple(found)
