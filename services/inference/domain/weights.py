"""Whether an adapter can change anything at all, read from its weights.

A LoRA adapter adds B·A to a weight of the base. B begins as zeros, so an adapter that learnt nothing still has them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_LENGTH = 8  # bytes, little-endian: the length of the header that follows
_MOST = 100 * 2**20  # bytes; the format's own limit for a header
_CHUNK = 2**20


def changes_nothing(read: Callable[[int, int], bytes]) -> bool:
    """Whether every B of a safetensors file is zero. `read(offset, length)` returns bytes of the file.

    False where that cannot be told, because the file is not as expected.
    """
    length = int.from_bytes(read(0, _LENGTH), "little")
    if not 0 < length <= _MOST:
        return False
    try:
        header: dict[str, Any] = json.loads(read(_LENGTH, length))
        parts = [entry["data_offsets"] for name, entry in header.items() if ".lora_B" in name]
        begin = _LENGTH + length
        return bool(parts) and all(_zero(read, begin + first, begin + last) for first, last in parts)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _zero(read: Callable[[int, int], bytes], first: int, last: int) -> bool:
    for offset in range(first, last, _CHUNK):
        data = read(offset, min(_CHUNK, last - offset))
        if data.count(0) != len(data):
            return False
    return True
