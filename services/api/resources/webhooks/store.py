"""Keeps the endpoints of webhooks in the object store."""

from __future__ import annotations

import base64
import logging
import re
import secrets
from collections.abc import Callable, Sequence

from pydantic import ValidationError

from services.api.domain.webhooks import ENDPOINTS, SECRET, Endpoint, EventType, endpoint_key
from services.api.resources.new_ids import new_id
from shared.errors import Conflict, TransientError
from shared.store.documents import Documents
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

SECRET_BYTES = 32
_ENDPOINT_ID = re.compile(r"whe_[a-z2-7]{24}")
MOST_TRIES = 8


class Busy(TransientError):
    """Others keep changing the endpoint."""


def new_secret() -> str:
    return SECRET + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def is_endpoint_id(text: str) -> bool:
    """Whether an endpoint can have this id. Any other text could lead to another key."""
    return _ENDPOINT_ID.fullmatch(text) is not None


class Endpoints:
    """The endpoints of all projects. Every method raises `StoreUnavailable`, `ConfigError` or `StoreRefused` when the
    store fails. A document that cannot be read is logged once, and is no endpoint."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._documents = Documents(objects, ENDPOINTS, _parsed)

    def now(self) -> float:
        return self._objects.now()

    async def all(self, *, deleted: bool = False) -> list[Endpoint]:
        """Those of all projects, the newest first. `deleted`: with those that are no more. It takes one listing, and
        one read per document that has changed."""
        found = (await self._documents.look()).values()
        known = [each for each in found if each is not None and (deleted or each.deleted_at is None)]
        return sorted(known, key=lambda each: (each.created_at, each.id), reverse=True)

    async def of(self, project: str, *, deleted: bool = False) -> list[Endpoint]:
        """Those of one project."""
        return [each for each in await self.all(deleted=deleted) if each.project == project]

    async def get(self, endpoint_id: str, *, deleted: bool = False) -> Endpoint | None:
        """An endpoint as it is now; None: there is none, or no more. `deleted`: also one that is no more."""
        found = await self._found(endpoint_id, deleted=deleted)
        return found[0] if found else None

    async def create(self, project: str, name: str, url: str, types: Sequence[EventType]) -> Endpoint:
        now = self._objects.now()
        endpoint = Endpoint(
            id=new_id("whe_"),
            project=project,
            name=name,
            url=url,
            subscribed=dict.fromkeys(types, now),
            created_at=now,
            updated_at=now,
            secret=new_secret(),
        )
        await self._objects.create(endpoint_key(endpoint.id), endpoint.model_dump_json().encode())
        return endpoint

    async def change(self, endpoint_id: str, change: Callable[[Endpoint], Endpoint]) -> Endpoint | None:
        """Change an endpoint; None: there is none, or no more.

        Raises:
            Busy: others change it all the time.
        """
        for _ in range(MOST_TRIES):
            found = await self._found(endpoint_id)
            if found is None:
                return None
            endpoint, etag = found
            after = change(endpoint)
            if after is endpoint:
                return endpoint
            try:
                await self._objects.replace(endpoint_key(endpoint_id), after.model_dump_json().encode(), etag)
                return after
            except Conflict:
                continue
        raise Busy(endpoint_id)

    async def _found(self, endpoint_id: str, *, deleted: bool = False) -> tuple[Endpoint, str] | None:
        if not is_endpoint_id(endpoint_id):
            return None
        found = await self._objects.get(endpoint_key(endpoint_id))
        endpoint = _parsed(endpoint_key(endpoint_id), found[0]) if found else None
        return (endpoint, found[1]) if found and endpoint and (deleted or endpoint.deleted_at is None) else None


def _parsed(key: str, data: bytes) -> Endpoint | None:
    """None: it cannot be read, or it is not the endpoint of this key."""
    try:
        endpoint = Endpoint.model_validate_json(data)
    except ValidationError:
        endpoint = None
    if endpoint is None or endpoint_key(endpoint.id) != key:
        log.error("the endpoint of a webhook cannot be read", extra={"reason": key})
        return None
    return endpoint
