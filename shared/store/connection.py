"""The connection to the object store: the `minio` client, and the threads that its calls run in.

The client is synchronous. Its threads are not those of `asyncio.to_thread`, which are few and are shared with all other
work of a service: small documents, whole files and renewals of leases have threads of their own, so that none waits for
another.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.error import MinioException, S3Error
from minio.time import to_amz_date
from urllib3.exceptions import HTTPError

from shared import tls
from shared.errors import ConfigError, StoreUnavailable
from shared.settings import StoreSettings
from shared.store.clock import StoreClock
from shared.store.errors import reason, translate
from shared.store.wire import Call, Limits, Pools, current
from shared.telemetry import metrics

log = logging.getLogger(__name__)
T = TypeVar("T")

DOCUMENT = Limits(silence=5.0, seconds=10.0)
"""Of a call for a small document or a page of a listing: two tries, if the store is silent."""
FILE = Limits(silence=30.0, seconds=60.0)
"""Of a request for a file, or for a part of a large one."""
LEASE = Limits(silence=3.0, seconds=5.0)
"""Of a renewal: it must be over before the next one is due."""

DOCUMENT_THREADS = 32
FILE_THREADS = 8
LEASE_THREADS = 8

SKEW_SECONDS = 60.0
"""Clocks that are closer than this cannot be why a store refuses a signature; S3 allows 15 minutes."""
GRACE_SECONDS = 0.25
"""A thread that ends at its deadline says why; only one that does not is cut."""


class Connection:
    """A client of one store and its threads."""

    def __init__(self, settings: StoreSettings, clock: StoreClock, *, for_leases: bool = False) -> None:
        """Nothing is sent before the first call.

        Raises:
            ConfigError: the endpoint is not a URL, or the CA file holds no certificate.
        """
        address = urlsplit(settings.endpoint)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ConfigError(
                f"TUNESTREAM_STORE__ENDPOINT is {settings.endpoint!r}; give a URL such as http://127.0.0.1:9000"
            )
        self.settings = settings
        self.clock = clock
        self.client: Minio = _Client(
            address.netloc,
            access_key=settings.access_key,
            secret_key=settings.secret_key.get_secret_value(),
            secure=address.scheme == "https",
            # without a region the first call asks for the bucket's location, which a least-privilege user may not do
            region=settings.region,
            http_client=Pools(
                clock,
                DOCUMENT,
                maxsize=DOCUMENT_THREADS,
                ssl_context=tls.client_context("STORE", settings.ca_file) if address.scheme == "https" else None,
            ),
        )
        self.client.clock = clock
        self._limits = LEASE if for_leases else DOCUMENT
        self._documents = ThreadPoolExecutor(LEASE_THREADS if for_leases else DOCUMENT_THREADS, "store")
        self._files = ThreadPoolExecutor(FILE_THREADS, "store-file")
        self._leases = self if for_leases else None

    @property
    def leases(self) -> Connection:
        """The connection for leases, always the same one: its own sockets and threads, the same clock."""
        self._leases = self._leases or Connection(self.settings, self.clock, for_leases=True)
        return self._leases

    async def document(self, operation: str, function: Callable[[], T]) -> T:
        """Run `function`, which makes requests for small documents, in a thread.

        Raises:
            StoreUnavailable, ConfigError, StoreRefused: the store failed. Other exceptions of `function` are kept.
        """
        return await self._run(operation, self._documents, Call(self._limits, self.clock), function)

    async def file(self, operation: str, function: Callable[[], T]) -> T:
        """As `document`, for whole files: the deadline grows with their size, and starts when a thread is free."""
        return await self._run(operation, self._files, Call(FILE, self.clock, waits=True), function)

    async def beside(self, function: Callable[[], T]) -> T:
        """Run `function`, which makes no requests of the client, in a thread for files."""
        return await asyncio.wrap_future(self._files.submit(function))

    def leave(self, function: Callable[[], object]) -> None:
        """Run `function` in a thread that nobody waits for, within the deadline of a document. It may fail."""
        context = contextvars.copy_context()
        context.run(current.set, Call(self._limits, self.clock))
        self._documents.submit(context.run, function)

    async def _run(self, operation: str, threads: ThreadPoolExecutor, call: Call, function: Callable[[], T]) -> T:
        context = contextvars.copy_context()
        context.run(current.set, call)
        with metrics.store_seconds.labels(operation).time():
            thread = threads.submit(context.run, self._translated, call, function)
            waiting = asyncio.wrap_future(thread)
            waiting.add_done_callback(_look_at)
            try:
                while not thread.done():
                    # a call may wait for a thread, and only then have a deadline
                    await asyncio.wait({waiting}, timeout=min(max(call.left + GRACE_SECONDS, 0.0), FILE.seconds))
                    if not thread.done() and call.left + GRACE_SECONDS <= 0:
                        call.reason = "deadline"
                        raise StoreUnavailable("the object store does not answer within the deadline of the call")
                return await waiting
            finally:
                if not thread.done():
                    waiting.cancel()
                    call.cut()
                if call.reason:
                    metrics.store_errors.labels(operation).inc()
                    log.warning("the object store failed", extra={"operation": operation, "reason": call.reason})

    def _translated(self, call: Call, function: Callable[[], T]) -> T:
        try:
            return function()
        except (MinioException, HTTPError, ConnectionError, TimeoutError, ParseError, ValueError) as error:
            call.reason = reason(error)
            # the messages of these exceptions name object keys
            raise translate(error, self.settings, call.status) from None


def _look_at(future: asyncio.Future[Any]) -> None:
    """Look at the exception of a call that nobody waits for any more, so that asyncio does not complain."""
    if not future.cancelled():
        future.exception()


class _Client(Minio):  # type: ignore[misc]  # Minio has no types
    """The client, signing by the store's clock: a store refuses a request whose time is 15 minutes off."""

    clock: StoreClock

    def _build_headers(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], datetime]:
        headers, _ = super()._build_headers(*args, **kwargs)
        date = datetime.fromtimestamp(self.clock.now(), UTC)
        headers["x-amz-date"] = to_amz_date(date)
        return headers, date

    def _url_open(self, *args: Any, headers: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """Send a signed request; once more if it was refused and its answer corrected the clock."""
        before = self.clock.offset()
        try:
            # the client adds to the headers, and the second try must not sign those of the first
            return super()._url_open(*args, headers=dict(headers or {}), **kwargs)
        except S3Error as error:
            corrected = abs(self.clock.offset() - before) > SKEW_SECONDS
            # the code does not tell: an answer to HEAD has no body
            if not corrected or error.response.status not in (400, 401, 403):
                raise
        return super()._url_open(*args, headers=dict(headers or {}), **kwargs)
