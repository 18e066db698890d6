"""When the next request may be sent: within the limits per minute, and not while the endpoint asks for a pause."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shared.retry import Backoff

WINDOW = 60.0
BACKOFF = Backoff(1.0, 30.0)
PATIENCE = 600.0
"""Seconds for which an endpoint may be away, before the run ends. The same command goes on later."""
LONGEST_LOOK = 1.0
"""Seconds between two looks at whether there is room: requests that took less than they might have make room early."""


@dataclass
class Ticket:
    """A request that was sent: when, and the tokens that count for it."""

    at: float
    tokens: int


class Pace:
    """Limits for one endpoint. `rest(seconds)` waits; it raises if the run is to stop."""

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        *,
        clock: Callable[[], float],
        rest: Callable[[float], Awaitable[None]],
    ) -> None:
        self._requests = requests
        self._tokens = tokens
        self._clock = clock
        self._rest = rest
        self._sent: deque[Ticket] = deque()
        self._order = asyncio.Lock()
        self._probe = asyncio.Lock()
        self._closed_until = 0.0
        self._failures = 0
        self._failing_since: float | None = None

    @asynccontextmanager
    async def turn(self, tokens: int) -> AsyncIterator[Ticket]:
        """Wait until a request of so many tokens may be sent; send it in the block. While the endpoint fails, one
        request at a time tries whether it is back."""
        while True:
            if not self._failures:
                yield await self._admitted(tokens)
                return
            async with self._probe:
                if self._failures:
                    yield await self._admitted(tokens)
                    return

    async def _admitted(self, tokens: int) -> Ticket:
        async with self._order:
            while (wait := self._wait(tokens)) > 0:
                await self._rest(wait)
            ticket = Ticket(self._clock(), tokens)
            self._sent.append(ticket)
            return ticket

    def _wait(self, tokens: int) -> float:
        now = self._clock()
        while self._sent and self._sent[0].at <= now - WINDOW:
            self._sent.popleft()
        if now < self._closed_until:
            return self._closed_until - now
        full = self._requests is not None and len(self._sent) >= self._requests
        # a request that is larger than the limit goes alone
        full |= self._tokens is not None and bool(self._sent) and self._counted() + tokens > self._tokens
        return min(self._sent[0].at + WINDOW - now, LONGEST_LOOK) if full else 0.0

    def _counted(self) -> int:
        return sum(ticket.tokens for ticket in self._sent)

    def succeeded(self) -> None:
        """The endpoint has answered."""
        self._failures, self._failing_since = 0, None

    def failed(self, begun: float, asked: float | None) -> bool:
        """A request that was sent at `begun` met an endpoint that is busy or away, and that may ask for a pause of
        `asked` seconds: until it is over, nothing is sent. False: that would be longer than `PATIENCE` since the first
        failure."""
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        if begun >= self._closed_until:  # those that were under way together count as one
            self._failures += 1
        wait = BACKOFF.jittered(max(1, self._failures)) if asked is None else asked
        self._closed_until = max(self._closed_until, now + wait)
        return self._closed_until - self._failing_since <= PATIENCE
