"""HTTP to the object store with deadlines: connections that can be cut, retries that end, and dates that are noted.

A socket's time-out limits only the silence before the next byte. A store that answers a byte now and then, or a body
that is sent slowly, needs the deadline of the whole call, which whoever waits for it enforces with `Call.cut`.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ProtocolError, ReadTimeoutError

from shared.retry import Backoff
from shared.store.clock import StoreClock

TRIES = 4
PAUSES = Backoff(0.2, 1.0)
REPEATABLE = {"GET", "HEAD", "PUT", "DELETE"}
"""A POST that may have taken effect is not repeated: a second completion of an upload is an error."""
TRY_AGAIN = {500, 502, 503, 504}
SLOWEST = 64 * 2**10
"""Bytes per second below which a transfer counts as stuck; each byte lengthens the deadline accordingly."""
PIECE = 64 * 2**10
"""Bytes that are sent at once: a socket's time-out is for all of what it is given."""


@dataclass(frozen=True)
class Limits:
    """What a call may take: seconds until the store says anything, and seconds for one request with all its tries,
    beside the time for its bytes."""

    silence: float
    seconds: float


class Overdue(HTTPError):
    """A call reached its deadline, or nobody waits for it any more."""


class Call:
    """One call to the store in a thread of its own: until when it may take, and which connection it uses."""

    def __init__(self, limits: Limits, clock: StoreClock, *, waits: bool = False) -> None:
        """`waits`: the call may wait for a thread for as long as others need theirs. Otherwise it may do so only while
        the store answers others: a call that waits behind those that get no answer ends with them."""
        self.limits = limits
        self.status: int | None = None
        """The HTTP status of the last answer."""
        self.reason: str | None = None
        """Why the store failed: its code, or the class of the exception."""
        self._clock = clock
        self._over = threading.Event()
        self._connection: _Connection | None = None
        self._since = float("inf") if waits else clock.monotonic()
        self._until: float | None = None  # of the current request; None: there was none yet

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return 0.0 if self._over.is_set() else self._deadline() - self._clock.monotonic()

    def _deadline(self) -> float:
        if self._until is not None:
            return self._until
        return max(self._since, self._clock.heard) + self.limits.seconds

    def request(self, size: int) -> None:
        """The call sends a request with `size` bytes. Each but the first has a deadline of its own: a listing may have
        many pages."""
        if self._until is None and self._since < float("inf"):
            self._until = self._deadline()
        else:
            self._until = self._clock.monotonic() + self.limits.seconds
        self.allow(size)

    def allow(self, size: int) -> None:
        """Lengthen the deadline of the request for `size` further bytes."""
        assert self._until is not None
        self._until += size / SLOWEST

    def pause(self, seconds: float) -> None:
        """Sleep, unless the call is cut."""
        self._over.wait(seconds)

    def uses(self, connection: _Connection) -> None:
        self._connection = connection
        connection.call = self
        if self.left <= 0:  # only now: `cut` finds either the connection, or this
            raise Overdue("the deadline is over")

    def cut(self) -> None:
        """Nobody waits for this call any more: end its thread soon, by shutting down the connection that it waits
        for."""
        self._over.set()
        connection = self._connection
        if connection is not None and connection.call is self and connection.sock is not None:
            with contextlib.suppress(OSError):  # it was closed meanwhile
                # not the method of an SSL socket, which would also end the encryption under the other thread's hands
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


current: ContextVar[Call | None] = ContextVar("current", default=None)
"""The call that this thread works on."""


class _Connection(HTTPConnection):
    """A connection that knows the call that uses it, and sends in pieces."""

    call: Call | None = None

    def connect(self) -> None:
        if call := current.get():
            call.uses(self)
        super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:
        if call := current.get():
            call.uses(self)
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        if not isinstance(data, bytes) or len(data) <= PIECE:
            super().send(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), PIECE):
            if self.call is not None and self.call.left <= 0:
                raise Overdue("the deadline is over")
            super().send(view[start : start + PIECE])


class _SecureConnection(_Connection, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Pools(urllib3.PoolManager):
    """The connections to the store. Each request ends by the deadline of the current call; what can be repeated is
    repeated until then. The dates of all answers go to `clock`."""

    def __init__(self, clock: StoreClock, limits: Limits, **options: Any) -> None:
        """`limits` are those of requests outside of any call."""
        super().__init__(**options)
        self.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        self._clock = clock
        self._limits = limits

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, with the retries of this module instead of urllib3's: those know no deadline, and wait for as
        long as the server asks."""
        call = current.get() or Call(self._limits, self._clock)
        call.request(len(options.get("body") or b""))
        pauses = iter(PAUSES)
        for attempt in itertools.count(1):
            failure: HTTPError | None = None
            response: urllib3.BaseHTTPResponse | None = None
            try:
                response = self._once(call, method, url, options)
            except (ConnectTimeoutError, ReadTimeoutError, ProtocolError) as error:
                failure = error
            pause = next(pauses)
            hopeless = attempt == TRIES or pause >= call.left
            if response is not None:
                if response.status not in TRY_AGAIN or method not in REPEATABLE or hopeless:
                    return response
                response.drain_conn()
            elif failure is not None and (hopeless or not _repeatable(method, failure)):
                raise failure
            call.pause(pause)
        raise AssertionError("the last try returns or raises")

    def _once(self, call: Call, method: str, url: str, options: dict[str, Any]) -> urllib3.BaseHTTPResponse:
        left = call.left
        if left <= 0:
            raise Overdue("the deadline is over")
        silence = min(call.limits.silence, left)
        sent = self._clock.monotonic()
        response = super().urlopen(
            method,
            url,
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=silence, read=silence),
            **options,
        )
        call.status = response.status
        if response.status < 500:  # the others may come from a proxy, which has a clock of its own
            self._clock.note(response.headers.get("date"), sent)
        if not options.get("preload_content", True):
            call.allow(response.length_remaining or 0)
        return response


def _repeatable(method: str, failure: HTTPError) -> bool:
    """Whether the request certainly had no effect, or may have it twice."""
    return isinstance(failure, ConnectTimeoutError) or method in REPEATABLE
