"""How many generations may be under way at a time. What is beyond that is refused at once, and told when to come back:
a request that waits for a connection to vLLM would only keep its client, and its body, for longer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.inference import metrics
from shared.http.errors import ApiError

RETRY_AFTER = 2  # seconds; answers take seconds, and the official client tries twice more
MAX_BODY_BYTES = 2**29
"""Bytes of bodies that are held at a time, of all requests together. A body is held until its answer begins, and takes
about twice as much memory while it is sent."""

FILES_PER_GENERATION = 2  # the connections to the client and to vLLM
OTHER_FILES = 1024  # of the store, the bus, the api service, requests that are no generations

log = logging.getLogger(__name__)


class Admission:
    """Counts the generations that are under way, and the bytes of their bodies."""

    def __init__(self, most: int, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        """`most`: generations at a time."""
        self._most = most
        self._max_body_bytes = max_body_bytes
        self._under_way = 0
        self._bytes = 0

    @classmethod
    def within(cls, most: int, allow_open_files: Callable[[int], int]) -> Admission:
        """At most `most` generations, and no more than the process may open files for: without one for a health check,
        vLLM would look dead. `allow_open_files` is asked for so many, and returns how many there may be."""
        wanted = most * FILES_PER_GENERATION + OTHER_FILES
        allowed = allow_open_files(wanted)
        fitting = max(1, (allowed - OTHER_FILES) // FILES_PER_GENERATION)
        if fitting < most:
            log.warning(
                "the limit of open files (ulimit -n) allows fewer generations at a time than "
                "TUNESTREAM_INFERENCE__MAX_GENERATIONS",
                extra={"count": fitting},
            )
        return cls(min(most, fitting))

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """A place for one generation, for as long as the block runs.

        Raises:
            ApiError: 429, all places are taken.
        """
        if self._under_way >= self._most:
            metrics.refused.labels("generations").inc()
            raise _busy(f"{self._under_way} generations are under way, and no more are taken at a time")
        self._under_way += 1
        metrics.under_way.set(self._under_way)
        slot = Slot(self)
        try:
            yield slot
        finally:
            slot.release_body()
            self._under_way -= 1
            metrics.under_way.set(self._under_way)

    def hold(self, size: int) -> None:
        """Count `size` bytes more.

        Raises:
            ApiError: 429, too many are held.
        """
        if self._bytes + size > self._max_body_bytes:
            metrics.refused.labels("body_bytes").inc()
            raise _busy("The requests under way are so large that no more are taken")
        self._bytes += size

    def release(self, size: int) -> None:
        self._bytes -= size


class Slot:
    """The place of one generation. It holds the request's body until `release_body`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = 0

    def hold(self, size: int) -> None:
        """Count `size` bytes more of the request's body. Raises like `Admission.hold`."""
        self._admission.hold(size)
        self._held += size

    def release_body(self) -> None:
        """Note that the body is not kept any longer."""
        self._admission.release(self._held)
        self._held = 0


def _busy(reason: str) -> ApiError:
    headers = {"retry-after": str(RETRY_AFTER)}
    return ApiError(429, f"{reason}. Try again in a moment.", code="rate_limit_exceeded", headers=headers)
