"""Bearer tokens of the HTTP services: who may ask."""

from __future__ import annotations

import hmac
from enum import Enum, auto


class Verdict(Enum):
    ACCEPTED = auto()
    MISSING = auto()
    """No bearer token was sent."""
    UNKNOWN = auto()
    """It is none of the keys."""


def judge(keys: tuple[str, ...], authorization: str | None) -> Verdict:
    """What an `Authorization` header is worth; without keys, everyone may ask."""
    if not keys:
        return Verdict.ACCEPTED
    scheme, _, token = (authorization or "").partition(" ")
    given = token.strip().encode()
    if scheme.lower() != "bearer" or not given:
        return Verdict.MISSING
    # all of them, each in constant time: how long it takes tells nothing about any
    matches = [hmac.compare_digest(given, key.encode()) for key in keys]
    return Verdict.ACCEPTED if any(matches) else Verdict.UNKNOWN
