"""The producer: every send ends within seconds, whatever becomes of the broker.

An idempotent producer of aiokafka never gives up: while the broker is away, its `send_and_wait` does not return, and a
cancelled wait does not take the record back. So a record is handed to it once, by a task of its own. Callers wait for
that task for a limited time. Who comes again with the same record waits for the task that is still under way, so that
an outage does not fill the producer with copies of one event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from shared.errors import EventRefused, TransientError
from shared.kafka.access import denied
from shared.kafka.envelope import Headers
from shared.kafka.errors import NO_ANSWER, is_transient, producer_is_spent, translate
from shared.kafka.security import client_options
from shared.kafka.topics import MAX_LETTER_BYTES, is_legal
from shared.settings import BusSettings
from shared.tasks import cancel_and_wait, try_within, wait_for_event

log = logging.getLogger(__name__)

CONNECT_SECONDS = 20.0
"""A client that has not connected by then is given up. (An idempotent one would try for ever.)"""
WATCH_SECONDS = 5.0
"""How often the broker is asked for a sign of life, and how long it may take to answer."""
AWAY_SECONDS = 1.0
"""How long a caller waits while the broker is known to be away: long enough to notice that it is back."""
RENEW_SECONDS = 60.0
"""After so long without an answer another client is tried: this one may know only addresses that are no more."""
CLOSE_SECONDS = 2.0
MOST_SENDS = 200
"""Records under way at one time. They are events of some hundred bytes, or one dead letter for each partition."""
MOST_DELIVERED = 1000
"""Delivered records that are remembered, because their callers had gone by then and will come again."""


@dataclass(frozen=True)
class Outgoing:
    """A record to send."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers


class Producer:
    """Sends records. `start` connects; `watch` must run beside it, to see when the broker is away or the client spent.

    `away_since` is the time, on the monotonic clock, since which the broker does not answer; None if it does.
    """

    def __init__(self, settings: BusSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.away_since: float | None = None
        self._settings = settings
        self._clock = clock
        self._client: AIOKafkaProducer | None = None
        self._sends: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, int] = {}
        """How many callers wait for a send."""
        self._delivered: dict[str, None] = {}
        """The records that arrived when their callers had stopped waiting, oldest first."""
        self._answered = clock()
        """When the broker last gave an answer."""
        self._doubt = asyncio.Event()
        self._spent = False
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect, once.

        Raises:
            KafkaError, OSError, TimeoutError: the broker cannot be reached, or refuses us.
            ConfigError: a certificate or key cannot be used.
        """
        if self._client is None:
            self._client = await self._connect()
            self._note_answer()

    async def send(self, identity: str, record: Outgoing) -> None:
        """Send `record`. The same `identity` means the same record: while it is under way it is not sent again.

        Raises:
            TransientError: the broker is away, or did not say within `bus.publish_seconds` that it has the record. It
                may still arrive.
            EventRefused: Kafka will never take it.
        """
        if identity in self._delivered:
            del self._delivered[identity]
            return
        if not is_legal(record.topic):
            raise EventRefused("Kafka knows no topic of such a name")
        task = self._sends.get(identity)
        if task is None:
            if self._client is None:
                raise TransientError("not connected to the bus")
            if len(self._sends) >= MOST_SENDS:
                raise TransientError("the bus does not answer, and many events wait for it already")
            task = self._sends[identity] = asyncio.create_task(self._deliver(self._client, record))
            task.add_done_callback(lambda task: self._sent(identity, task))
        await self._wait(identity, task)

    async def watch(self) -> None:
        """Ask the broker for a sign of life again and again, and replace a client that is spent, until cancelled."""
        while True:
            await wait_for_event(self._doubt, WATCH_SECONDS)
            self._doubt.clear()
            try:
                if await self._answers():
                    self._note_answer()
                else:
                    self.note_silence()
                away = self.away_since
                if self._spent or (away is not None and self._clock() - away >= RENEW_SECONDS):
                    await self._renew()
            except Exception as error:
                log.warning("no new connection to the bus yet", extra={"reason": type(error).__name__})

    async def stop(self) -> None:
        """Close the connection; records that are under way are given up after a few seconds."""
        client, self._client = self._client, None
        if client is not None:
            await self._close(client)
        await cancel_and_wait(*self._sends.values())
        await asyncio.gather(*self._closing, return_exceptions=True)

    # --- one record -------------------------------------------------------------------------------------------

    async def _wait(self, identity: str, task: asyncio.Task[None]) -> None:
        began = self._clock()
        limit = self._settings.publish_seconds
        if self.away_since is not None:
            limit = min(limit, AWAY_SECONDS)
        self._waiting[identity] = self._waiting.get(identity, 0) + 1
        try:
            await asyncio.wait({task}, timeout=limit)  # which does not cancel the task
        finally:
            self._waiting[identity] -= 1
            if not self._waiting[identity]:
                del self._waiting[identity]
        if not task.done():
            # a missing topic or a partition without a leader takes long, too, while the broker answers
            if self._answered <= began:
                self.note_silence()
            self._doubt.set()
            raise TransientError(f"the bus did not say within {limit:g} s that it has the event")
        if task.cancelled():
            raise TransientError("the connection to the bus was given up")
        error = task.exception()
        if error is None:
            return
        if not isinstance(error, KafkaError | OSError):
            raise error
        if line := denied(error, self._settings, "write to"):
            log.error(line)
        raise translate(error, self._settings) from error

    async def _deliver(self, client: AIOKafkaProducer, record: Outgoing) -> None:
        try:
            await client.send_and_wait(record.topic, value=record.value, key=record.key, headers=record.headers)
        except (KafkaError, OSError) as error:
            if isinstance(error, NO_ANSWER):
                self._doubt.set()
            elif client is self._client and self._ends(error):
                self._spent = True
                self._doubt.set()
            raise
        self._note_answer()

    def _ends(self, error: KafkaError | OSError) -> bool:
        """Whether a client that met `error` is of no more use."""
        # aiokafka has counted the refused record, and the broker would miss its number in whatever follows
        return producer_is_spent(error) or (self._settings.idempotent and not is_transient(error))

    def _sent(self, identity: str, task: asyncio.Task[None]) -> None:
        if self._sends.get(identity) is task:
            del self._sends[identity]
        if task.cancelled() or task.exception() is not None or identity in self._waiting:
            return
        self._delivered[identity] = None
        while len(self._delivered) > MOST_DELIVERED:
            del self._delivered[next(iter(self._delivered))]

    # --- the broker -------------------------------------------------------------------------------------------

    async def _answers(self) -> bool:
        if self._client is None:
            return False
        try:
            async with asyncio.timeout(WATCH_SECONDS):
                return bool(await self._client.client.force_metadata_update())
        except TimeoutError:
            return False

    def _note_answer(self) -> None:
        self._answered = self._clock()
        if self.away_since is not None:
            log.info("the message bus answers again")
            self.away_since = None

    def note_silence(self) -> None:
        """Note that the broker does not answer."""
        if self.away_since is None:
            log.warning("the message bus does not answer")
            self.away_since = self._clock()

    # --- clients ----------------------------------------------------------------------------------------------

    async def _connect(self) -> AIOKafkaProducer:
        client = AIOKafkaProducer(
            bootstrap_servers=self._settings.bootstrap,
            acks="all",
            enable_idempotence=self._settings.idempotent,
            request_timeout_ms=15_000,
            max_request_size=MAX_LETTER_BYTES,
            **client_options(self._settings),
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.start()
        except BaseException:
            await self._close(client)
            raise
        return client

    async def _renew(self) -> None:
        """Replace the client. What it had under way is given up: whoever waits for it sends it again."""
        new = await self._connect()
        old, self._client = self._client, new
        self._spent = False
        given_up = list(self._sends.values())
        self._sends.clear()
        await cancel_and_wait(*given_up)
        if old is not None:
            task = asyncio.create_task(self._close(old))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._note_answer()

    async def _close(self, client: AIOKafkaProducer) -> None:
        """Close a client within seconds. aiokafka's own `stop` waits until everything is delivered."""
        patience = CLOSE_SECONDS if self.away_since is None else 0.1
        await try_within(client.stop, patience)
        for step in (client._sender.close, client.client.close):
            await try_within(step, CLOSE_SECONDS)
