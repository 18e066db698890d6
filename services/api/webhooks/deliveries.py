"""Keeps deliveries in the object store, and knows those that are waiting."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from services.api.domain.webhooks import Delivery, Endpoint, deliveries_prefix, delivery_key
from shared.errors import AlreadyExists, Conflict
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

READERS = 8


@dataclass
class Waiting:
    """A delivery that is not done, and the ETag of its document."""

    delivery: Delivery
    etag: str


class Deliveries:
    """What is to be sent. Every method raises `StoreUnavailable`, `ConfigError` or `StoreRefused` when the store
    fails."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._known: dict[str, set[str]] = {}
        """The keys of all deliveries of each endpoint whose deliveries were read."""
        self._waiting: dict[str, dict[str, Waiting]] = {}
        """Those that are waiting, by endpoint and key, the oldest first."""

    def now(self) -> float:
        return self._objects.now()

    def forget(self) -> None:
        """Another process may have written meanwhile."""
        self._known, self._waiting = {}, {}

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def due(self, now: float) -> dict[str, list[Waiting]]:
        """Those that are to be tried by now, by endpoint."""
        due = {name: [each for each in all_.values() if each.delivery.next_at <= now] for name, all_ in self._all()}
        return {endpoint: found for endpoint, found in due.items() if found}

    def _all(self) -> Sequence[tuple[str, dict[str, Waiting]]]:
        return list(self._waiting.items())

    async def load(self, endpoint: Endpoint) -> None:
        """Read the deliveries of an endpoint, once."""
        if endpoint.id in self._known:
            return
        entries = [entry async for entry in self._objects.walk(deliveries_prefix(endpoint.id))]
        waiting: dict[str, Waiting] = {}
        for start in range(0, len(entries), READERS):
            keys = [entry.key for entry in entries[start : start + READERS]]
            for key, found in zip(keys, await asyncio.gather(*map(self._read, keys)), strict=True):
                if found is not None and found.delivery.state == "waiting":
                    waiting[key] = found
        oldest_first = sorted(waiting.items(), key=lambda each: each[1].delivery.event.at)
        self._waiting[endpoint.id] = dict(oldest_first)
        self._known[endpoint.id] = {entry.key for entry in entries}

    async def add(self, delivery: Delivery) -> None:
        """Write down that something is to be sent, unless it was before. `load` its endpoint first."""
        key = delivery_key(delivery.endpoint, delivery.event.id)
        known = self._known[delivery.endpoint]
        if key in known:
            return
        try:
            etag = await self._objects.create(key, _json(delivery))
            found: Waiting | None = Waiting(delivery, etag)
        except AlreadyExists:
            found = await self._read(key)
        known.add(key)
        if found is not None and found.delivery.state == "waiting":
            self._waiting[delivery.endpoint][key] = found

    async def write(self, waiting: Waiting, after: Delivery) -> None:
        """Write what became of a delivery. One that is done is waiting no more."""
        key = delivery_key(after.endpoint, after.event.id)
        while True:
            try:
                waiting.etag = await self._objects.replace(key, _json(after), waiting.etag)
                waiting.delivery = after
                break
            except Conflict:  # by a process that had the lease before
                found = await self._read(key)
            if found is None:  # it was deleted, or nobody can read it
                self._drop(after.endpoint, key)
                return
            waiting.delivery, waiting.etag = found.delivery, found.etag
            if after.state == "waiting" or found.delivery.state != "waiting":
                break  # what the other one wrote is as good
        if waiting.delivery.state != "waiting":
            self._drop(after.endpoint, key)

    def _drop(self, endpoint: str, key: str) -> None:
        self._waiting.get(endpoint, {}).pop(key, None)

    async def _read(self, key: str) -> Waiting | None:
        found = await self._objects.get(key)
        try:
            delivery = Delivery.model_validate_json(found[0]) if found else None
        except ValidationError:
            delivery = None
            log.error("a delivery of a webhook cannot be read", extra={"reason": key})
        if found is None or delivery is None or delivery_key(delivery.endpoint, delivery.event.id) != key:
            return None
        return Waiting(delivery, found[1])


def _json(delivery: Delivery) -> bytes:
    return delivery.model_dump_json().encode()
