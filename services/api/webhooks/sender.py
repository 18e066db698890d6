"""Tells the endpoints of a project that its jobs have ended. Of all replicas the one that holds the lease does it.

What is to be sent is written down before the first try, and so is what became of it. So it is sent at least once,
whatever is restarted in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from services.api import metrics
from services.api.domain.webhooks import CLAIM, TELL_SECONDS, Delivery, Endpoint, signed, tried
from services.api.duty import Duty
from services.api.resources.webhooks.store import Endpoints
from services.api.webhooks.deliveries import Deliveries, Waiting
from services.api.webhooks.ended import EndedJobs
from services.api.webhooks.receivers import NoAnswer, Receivers
from shared.errors import ConfigError, StoreRefused, TransientError
from shared.retry import Backoff
from shared.stages.lease import Lease
from shared.store.objects import ObjectStore
from shared.tasks import cancel_and_wait, wait_for_event

log = logging.getLogger(__name__)

LEASE_SECONDS = 90.0
ROUND_SECONDS = 5.0
"""How often the database is asked for jobs that have ended. The store is not asked."""
ASK_SECONDS = 30.0
"""How often a replica asks for the lease while another one has it."""
LOOK_SECONDS = 600.0
"""How often the endpoints are listed while nothing happens: another replica may have made the first one, or deleted the
last."""
PAUSES = Backoff(10.0, 3600.0)
"""Between two tries of one delivery."""
AWAY_PAUSES = Backoff(2.0, 60.0)
"""Between two tries while the object store is away."""

Certain = Callable[[], Awaitable[None]]


class Sender:
    """Runs beside the api until it is cancelled, and raises nothing."""

    def __init__(
        self,
        objects: ObjectStore,
        ended: EndedJobs,
        receivers: Receivers,
        wanted: asyncio.Event,
        *,
        owner: str,
        pauses: Backoff = PAUSES,
        round_seconds: float = ROUND_SECONDS,
        ask_seconds: float = ASK_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """`wanted` is set when an endpoint is made by this process."""
        self._endpoints = Endpoints(objects)
        self._deliveries = Deliveries(objects)
        self._ended = ended
        self._receivers = receivers
        self._wanted = wanted
        self._pauses = pauses
        self._round_seconds = round_seconds
        self._ask_seconds = ask_seconds
        self._look_seconds = look_seconds
        self._duty = Duty(objects, CLAIM, name="sender of webhooks", owner=owner, lease_seconds=lease_seconds)
        self._sending: dict[str, asyncio.Task[None]] = {}
        """One task for each endpoint, so that a slow receiver holds up no other one."""
        self._failures = 0
        """Rounds in a row in which the store was away."""
        self._refusal = ""
        """What the store refuses, as it was logged."""

    async def run(self) -> None:
        """Work whenever there is an endpoint and the lease is ours."""
        while True:
            pause = self._look_seconds
            self._wanted.clear()
            if not await self._guarded(self._term):
                pause = AWAY_PAUSES.jittered(self._failures)
            elif self._asks:
                pause = self._ask_seconds
            await wait_for_event(self._wanted, pause)

    _asks = False
    """Whether there are endpoints, so that the lease is worth asking for."""

    async def _term(self) -> None:
        """Work for as long as the lease is held and there are endpoints; return at once if there are none."""
        self._asks = bool(await self._endpoints.all())
        lease = await self._duty.take() if self._asks else None
        self._failures = 0
        if lease is not None:
            self.forget()
            try:
                await self._duty.hold(lease, self._work)
            finally:
                metrics.webhooks_waiting.set(0)

    async def _work(self, lease: Lease) -> None:
        loop = asyncio.get_running_loop()
        look_at = loop.time() + self._look_seconds
        try:
            while True:
                fine = await self._guarded(partial(self.round, lease.certain))
                self._failures = 0 if fine else self._failures
                if fine and loop.time() >= look_at and not self._deliveries.waiting:
                    look_at = loop.time() + self._look_seconds
                    if await self._guarded(self._look) and not self._asks:
                        return
                await asyncio.sleep(self._round_seconds if fine else AWAY_PAUSES.jittered(self._failures))
        finally:
            await cancel_and_wait(*self._sending.values())
            self._sending = {}

    async def _look(self) -> None:
        self._asks = bool(await self._endpoints.all())

    def forget(self) -> None:
        """Another process may have worked meanwhile."""
        self._ended.forget()
        self._deliveries.forget()
        self._loaded = False

    _loaded = False

    async def round(self, certain: Certain) -> None:
        """Write down what is to be sent of the jobs that have ended, and start to send what is due.

        Raises:
            StoreUnavailable, ConfigError, StoreRefused: the store does not answer, or refuses it.
        """
        await certain()
        now = self._deliveries.now()
        endpoints: list[Endpoint] | None = None
        if not self._loaded:
            endpoints = await self._load()
            self._loaded = True
        async for ended in self._ended.new():
            if ended.event.at >= now - TELL_SECONDS:
                endpoints = await self._load() if endpoints is None else endpoints
                for endpoint in endpoints:
                    if endpoint.wants(ended.event, ended.project):
                        about = {"endpoint": endpoint.id, "project": ended.project}
                        await self._deliveries.add(Delivery(event=ended.event, at=now, **about))
            self._ended.done(ended)
        metrics.webhooks_waiting.set(self._deliveries.waiting)
        self._sending = {name: task for name, task in self._sending.items() if not task.done()}
        for name, due in self._deliveries.due(now).items():
            if name not in self._sending:
                self._sending[name] = asyncio.create_task(self._send_all(due, certain))

    async def sent(self) -> None:
        """Wait until nothing is being sent."""
        await asyncio.gather(*self._sending.values())

    async def _load(self) -> list[Endpoint]:
        endpoints = await self._endpoints.all()
        for endpoint in endpoints:
            await self._deliveries.load(endpoint)
        return endpoints

    async def _send_all(self, due: list[Waiting], certain: Certain) -> None:
        """Send what is due to one endpoint, one after another."""
        for waiting in due:
            if not await self._guarded(partial(self._send, waiting, certain)):
                return  # the next round goes on

    async def _send(self, waiting: Waiting, certain: Certain) -> None:
        delivery, event = waiting.delivery, waiting.delivery.event
        # as it is now: it may have been deleted, or its secret replaced, by any replica
        endpoint = await self._endpoints.get(delivery.endpoint)
        await certain()
        now = self._deliveries.now()
        if endpoint is None or not endpoint.wants(event, delivery.project):
            await self._write(waiting, delivery.model_copy(update={"state": "unwanted"}))
            return
        body, answer, problem = event.body(), None, None
        try:
            answer = await self._receivers.post(endpoint.url, body, signed(event.id, now, body, endpoint.secrets(now)))
            problem = None if 200 <= answer < 300 else f"it answered {answer}"
        except NoAnswer as error:
            problem = str(error)
        pause = self._pauses.jittered(delivery.tries + 1)
        after = tried(delivery, answer, problem, self._deliveries.now(), pause)
        metrics.webhook_tries.labels("sent" if problem is None else "failed").inc()
        if after.state == "given_up":
            metrics.webhook_tries.labels("given_up").inc()
            about = {"job_id": event.job_id, "reason": problem, "event": event.id, "attempt": after.tries}
            log.error("a webhook is given up: its receiver at %s has not taken it", endpoint.id, extra=about)
        elif problem is not None and after.tries == 1:
            about = {"job_id": event.job_id, "reason": problem, "event": event.id}
            log.warning("a webhook is tried again: its receiver at %s has not taken it", endpoint.id, extra=about)
        await self._write(waiting, after)

    async def _write(self, waiting: Waiting, after: Delivery) -> None:
        """Write what became of a delivery. While the store is away, or refuses it, this waits: otherwise what was taken
        would be sent again."""
        failures = 0
        while not await self._guarded(partial(self._deliveries.write, waiting, after)):
            failures += 1
            await asyncio.sleep(AWAY_PAUSES.jittered(failures))

    async def _guarded(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Await `step()`, whatever it raises. Whether it raised nothing."""
        try:
            await step()
            self._refusal = ""
            return True
        except TransientError as error:
            if self._failures == 0:
                log.warning("webhooks wait for the object store", extra={"reason": type(error).__name__})
        except (ConfigError, StoreRefused) as error:
            if str(error) != self._refusal:
                self._refusal = str(error)
                log.error(
                    "the object store refuses the sender of webhooks: give the api's user the rights of `api` in "
                    "deploy/stack.yaml (`docker compose run --rm init` does)",
                    extra={"reason": str(error)},
                )
        except Exception:
            log.exception("the sender of webhooks has failed, and tries again")
        self._failures += 1
        return False
