"""The endpoints of webhooks as clients see and change them. The shapes are those of openai-python 3.54."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from services.api.domain.webhooks import EVENT_TYPES, OLD_SECRET_SECONDS, Endpoint, EventType
from shared.errors import InputError
from shared.events import StrictModel

MOST_ENDPOINTS = 100
"""In one project."""

Name = Annotated[str, Field(min_length=1, max_length=256)]
Url = Annotated[str, Field(min_length=1, max_length=4096)]
Types = Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=100)]


class CreateBody(StrictModel):
    """What a client sends to make an endpoint."""

    event_types: Types
    name: Name
    url: Url


class UpdateBody(StrictModel):
    """What a client sends to change one; None: it stays as it is."""

    event_types: Types | None = None
    name: Name | None = None
    url: Url | None = None


class RotateBody(StrictModel):
    """What a client may send to replace the secret."""

    keep_old_secret_active_for_24_hours: bool | None = None


class SampleBody(StrictModel):
    """What a client sends to have a sample sent."""

    event_type: Annotated[str, Field(max_length=128)]


def known_types(names: Sequence[str], param: str) -> tuple[EventType, ...]:
    """The types of events of these names, each once.

    Raises:
        InputError: there is none, or one that is not sent.
    """
    allowed = ", ".join(EVENT_TYPES)
    if not names:
        raise InputError("invalid_event_types", f"Name at least one type of event: {allowed}.", param)
    known = {str(each): each for each in EVENT_TYPES}
    for name in names:
        if name not in known:
            raise InputError("unsupported_event_type", f"No webhook is sent for {name!r}; choose of {allowed}.", param)
    return tuple(known[name] for name in dict.fromkeys(names))


def changed(endpoint: Endpoint, body: UpdateBody, now: float) -> Endpoint:
    """The endpoint after an update; the same if it changes nothing.

    Raises:
        InputError: a type of event is not sent.
    """
    update: dict[str, Any] = {}
    if body.event_types is not None:
        types = known_types(body.event_types, "event_types")
        update["subscribed"] = {each: endpoint.subscribed.get(each, now) for each in types}
    if body.name is not None:
        update["name"] = body.name
    if body.url is not None:
        update["url"] = body.url
    after = endpoint.model_copy(update=update)
    same = after == endpoint and list(after.subscribed) == list(endpoint.subscribed)
    return endpoint if same else after.model_copy(update={"updated_at": now})


def rotated(endpoint: Endpoint, secret: str, *, keep: bool, now: float) -> Endpoint:
    """The endpoint with a new secret. `keep`: whether the old one is good for another day."""
    old = {
        "old_secret": endpoint.secret if keep else None,
        "old_until": now + OLD_SECRET_SECONDS if keep else 0.0,
    }
    return endpoint.model_copy(update={"secret": secret, "updated_at": now, **old})


def deleted(endpoint: Endpoint, now: float) -> Endpoint:
    """The endpoint as one that is no more. Nobody needs its secrets."""
    return endpoint.model_copy(update={"deleted_at": now, "updated_at": now, "secret": "", "old_secret": None})


def endpoint_view(endpoint: Endpoint, *, secret: bool = False) -> dict[str, Any]:
    """The JSON object of an endpoint. `secret`: show the secret, too, which is done once."""
    view: dict[str, Any] = {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "created_at": int(endpoint.created_at),
        "updated_at": int(endpoint.updated_at),
        "event_types": list(endpoint.subscribed),
        "name": endpoint.name,
        "url": endpoint.url,
        "signing_secret_hint": f"whsec_…{endpoint.secret[-4:]}",
    }
    return view | {"signing_secret": endpoint.secret} if secret else view
