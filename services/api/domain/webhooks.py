"""Webhooks: the documents of endpoints and deliveries, the events that are told, and their signatures (Standard
Webhooks, as OpenAI signs). Times are in seconds since the epoch, by the clock of the object store."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Literal, get_args

from shared import ids
from shared.events import FrozenModel
from shared.events.limits import DEFAULT_PROJECT

EventType = Literal["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)

WEBHOOKS = "webhooks/"
ENDPOINTS = "webhooks/endpoints/"
DELIVERIES = "webhooks/deliveries/"
CLAIM = "webhooks/claim.json"

HOUR, DAY = 3600.0, 86_400.0
GIVE_UP_SECONDS = 72 * HOUR
"""After so long a delivery is tried no more."""
TELL_SECONDS = 7 * DAY
"""An end of a job that is noticed later than this is told to nobody."""
FORGET_SECONDS = 14 * DAY
"""A delivery of which nothing was written for so long is deleted. It is longer than `TELL_SECONDS`, so that nothing is
told again because its delivery was forgotten."""
OLD_SECRET_SECONDS = 24 * HOUR
SECRET = "whsec_"


class Endpoint(FrozenModel):
    """`webhooks/endpoints/{id}.json`: where a project wants to be told. It is changed only by compare-and-swap."""

    id: str
    project: str = DEFAULT_PROJECT
    name: str
    url: str
    subscribed: dict[str, float]
    """The types of events, each with the time since which it is wanted: what happened before is not told."""
    created_at: float
    updated_at: float
    secret: str
    """`whsec_…`. It has to be kept, because every delivery is signed with it. Empty in a deleted endpoint."""
    old_secret: str | None = None
    """The secret before, with which deliveries are signed, too, until `old_until`."""
    old_until: float = 0.0
    deleted_at: float | None = None

    def secrets(self, now: float) -> tuple[str, ...]:
        """Those that a receiver may still know, the newest first."""
        old = (self.old_secret,) if self.old_secret and now < self.old_until else ()
        return (self.secret, *old)

    def wants(self, event: WebhookEvent, project: str) -> bool:
        """Whether it is to be told of an event of a project."""
        since = self.subscribed.get(event.type)
        return self.deleted_at is None and self.project == project and since is not None and event.at >= since


class WebhookEvent(FrozenModel):
    """The end of a job, as it is told. `at`: when it ended."""

    type: EventType
    job_id: str
    at: float

    @property
    def id(self) -> str:
        """The same on every repetition, so that a receiver knows what it has seen."""
        return f"evt_{ids.derive('webhook', self.job_id, self.type)}"

    def body(self) -> bytes:
        """What is sent."""
        about = {"id": self.id, "object": "event", "created_at": int(self.at), "type": self.type}
        return ids.canonical(about | {"data": {"id": self.job_id}})


class Delivery(FrozenModel):
    """`webhooks/deliveries/{endpoint}/{event}.json`: one event for one endpoint. It is created once, before the first
    try, and changed by compare-and-swap."""

    endpoint: str
    event: WebhookEvent
    project: str
    at: float
    """When it was written first."""
    state: Literal["waiting", "delivered", "given_up", "unwanted"] = "waiting"
    """`unwanted`: the endpoint was deleted, or does not want such events any more."""
    tries: int = 0
    next_at: float = 0.0
    """When it is tried again."""
    answer: int | None = None
    """The HTTP status of the last try; None: there was no answer."""
    problem: str | None = None
    """Why the last try has failed, in one line."""


def endpoint_key(endpoint_id: str) -> str:
    return f"{ENDPOINTS}{endpoint_id}.json"


def deliveries_prefix(endpoint_id: str) -> str:
    return f"{DELIVERIES}{endpoint_id}/"


def delivery_key(endpoint_id: str, event_id: str) -> str:
    return f"{deliveries_prefix(endpoint_id)}{event_id}.json"


def signed(event_id: str, at: float, body: bytes, secrets: tuple[str, ...]) -> dict[str, str]:
    """The headers of a delivery: one signature for each of the secrets."""
    timestamp = str(int(at))
    content = b".".join((event_id.encode(), timestamp.encode(), body))
    return {
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{_signature(content, secret)}" for secret in secrets),
    }


def _signature(content: bytes, secret: str) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET))
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def tried(delivery: Delivery, answer: int | None, problem: str | None, now: float, pause: float) -> Delivery:
    """The delivery after one try. `problem` None: the receiver has taken it. `pause`: seconds until the next try."""
    after = delivery.model_copy(update={"tries": delivery.tries + 1, "answer": answer, "problem": problem})
    end = delivery.at + GIVE_UP_SECONDS
    if problem is None:
        return after.model_copy(update={"state": "delivered"})
    if now >= end:
        return after.model_copy(update={"state": "given_up"})
    return after.model_copy(update={"next_at": min(now + pause, end)})
