"""A fixed conversation by which two places can tell that they make the same tokens, without any text of a user."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

PROBE: tuple[dict[str, Any], ...] = (
    {"role": "user", "content": "Name a town by the sea, please."},
    {"role": "assistant", "content": "Larkfield."},
    {"role": "user", "content": "  Zürich 42?\nAnd one in the hills:\t東京."},
)
"""Two questions, since templates write earlier turns in a way of their own; white space and letters outside ASCII,
since tokenizers differ there. There is no system message, because some templates refuse one."""


def digest_of(ids: Sequence[int]) -> str:
    """The first 32 hex digits of the SHA-256 of token ids."""
    return hashlib.sha256(json.dumps([int(i) for i in ids]).encode()).hexdigest()[:32]
