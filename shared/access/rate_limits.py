"""How many requests an API key may send a minute, and how many tokens its generations may use. Each process counts for
itself. Times are seconds of any clock that only grows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shared.events import KeyLimits

MINUTE = 60.0
REQUESTS, TOKENS = (
    tuple(f"x-ratelimit-{what}-{of}".encode() for what in ("limit", "remaining", "reset"))
    for of in ("requests", "tokens")
)
"""The names of the headers."""


class Bucket:
    """A level that rises evenly, by `per_minute` in a minute, up to `capacity`; what is used is taken from it."""

    __slots__ = ("_at", "_level", "capacity", "rate")

    def __init__(self, per_minute: float, at: float, capacity: float | None = None) -> None:
        """It is full. `capacity`: by default what a minute brings."""
        self.capacity = per_minute if capacity is None else capacity
        self.rate = per_minute / MINUTE
        self._level = self.capacity
        self._at = at

    def level(self, at: float) -> float:
        """What may be used at once. Below zero: more was used than there was."""
        if at > self._at:
            self._level = min(self.capacity, self._level + (at - self._at) * self.rate)
            self._at = at
        return self._level

    def take(self, at: float, amount: float = 1.0) -> bool:
        """Use `amount`, if there is as much."""
        enough = self.level(at) >= amount
        if enough:
            self._level -= amount
        return enough

    def spend(self, at: float, amount: float) -> None:
        """Note that `amount` was used, also where there was less."""
        self._level = self.level(at) - amount

    def seconds_until(self, at: float, amount: float) -> float:
        """When there is `amount`; 0: there is."""
        return max(0.0, (amount - self.level(at)) / self.rate)


@dataclass(frozen=True)
class Exceeded:
    """A request that is over a limit. `of`: `requests` or `tokens`; `limit`: how many of them a minute may have;
    `seconds`: when the same request is within it."""

    of: str
    limit: int
    seconds: float


class RateLimiter:
    """Counts what one key uses. The number of tokens is known only after a generation, so the one that goes over the
    limit is answered, and the next has to wait until the minutes have brought as many."""

    __slots__ = ("_limits", "_requests", "_tokens")

    def __init__(self, limits: KeyLimits, at: float) -> None:
        self._limits = limits
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        self._requests = Bucket(requests, at) if requests is not None else None
        self._tokens = Bucket(tokens, at) if tokens is not None else None

    def take(self, at: float, *, generation: bool) -> Exceeded | None:
        """Count one request. The limit that it exceeds; None: it is within all. One that is refused does not count."""
        if generation and self._tokens is not None and self._tokens.level(at) < 1.0:
            return self._exceeded("tokens", self._tokens, at)
        if self._requests is not None and not self._requests.take(at):
            return self._exceeded("requests", self._requests, at)
        return None

    def spend(self, tokens: int, at: float) -> None:
        """Count the tokens of a generation."""
        if self._tokens is not None:
            self._tokens.spend(at, tokens)

    def headers(self, at: float) -> list[tuple[bytes, bytes]]:
        """`x-ratelimit-*`, as OpenAI sends them: the limit, what is left, and when all of it is there again."""
        found: list[tuple[bytes, bytes]] = []
        for names, bucket in ((REQUESTS, self._requests), (TOKENS, self._tokens)):
            if bucket is not None:
                left, reset = bucket.level(at), bucket.seconds_until(at, bucket.capacity)
                values = (b"%d" % bucket.capacity, b"%d" % max(0.0, left), duration(reset).encode())
                found += zip(names, values, strict=True)
        return found

    def _exceeded(self, of: str, bucket: Bucket, at: float) -> Exceeded:
        return Exceeded(of, round(bucket.capacity), bucket.seconds_until(at, 1.0))


def duration(seconds: float) -> str:
    """`seconds` as OpenAI writes them: `120ms`, `1.5s`, `6m0s`. Rounded up, so that nobody comes too early."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:g}s"
    minutes, rest = divmod(math.ceil(milliseconds / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
