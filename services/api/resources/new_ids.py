"""Ids of things that a client makes. They are random: the same request twice makes two things."""

from __future__ import annotations

import base64
import secrets

from shared.ids import ID_CHARS


def new_id(prefix: str) -> str:
    """`prefix` and 24 characters of base32 in lower case, which are 120 random bits."""
    return prefix + base64.b32encode(secrets.token_bytes(ID_CHARS * 5 // 8)).decode().lower()
