"""What the routes take and answer, as the OpenAPI document shows it; a test holds both together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from shared.events import Deployment
from shared.http.openapi import Answer

Json = dict[str, Any]


class Model(Answer):
    """The base, a tuned model, a checkpoint or an alias."""

    id: str
    object: Literal["model"]
    created: int
    """In whole seconds since the epoch; 0 of the base."""
    owned_by: str
    shutdown_date: int | None
    root: str
    """The model that an alias names; else the base."""
    parent: str | None
    background_requests: int | None = None
    """Of the base, if it is known: how many requests at a time a client that can wait should have under way, so that
    others are answered at once."""


class ModelList(Answer):
    """All models of the project."""

    object: Literal["list"]
    data: list[Model]


class ModelDeleted(Answer):
    """The model is not found any more."""

    id: str
    object: Literal["model"]
    deleted: Literal[True]


class DeploymentList(Answer):
    """The aliases of the project."""

    object: Literal["list"]
    data: list[Deployment]


_MODEL: Json = {"type": "string", "minLength": 1, "description": "The id of a model, or an alias: see GET /v1/models."}
_STREAM: Json = {
    "type": ["boolean", "null"],
    "description": "Answer with server-sent events, the last one `[DONE]`.",
}
_MORE = "Whatever else vLLM knows is passed on to it as it is."


_EVENT: Json = {
    "type": "object",
    "description": "One event. `data` is a piece of the answer or an error as JSON; that of the last one is `[DONE]`.",
    "required": ["data"],
    "properties": {"data": {"type": "string"}},
}


def _asks(required: str, **properties: Json) -> Json:
    return {
        "type": "object",
        "description": _MORE,
        "required": ["model", required],
        "properties": {"model": _MODEL, **properties},
    }


def _answers(kind: str, **properties: Json) -> Json:
    return {
        "type": "object",
        "required": ["object", *properties],
        "properties": {"object": {"const": kind}, "usage": {"type": ["object", "null"]}, **properties},
    }


_MESSAGES: Json = {"type": "array", "items": {"type": "object"}, "minItems": 1}
_CHOICES: Json = {"type": "array", "items": {"type": "object"}}
_TEXTS: Json = {"description": "A text, or several; as tokens, too."}
_BODIES: Mapping[str, tuple[str, Json, Json]] = {
    "/v1/chat/completions": (
        "Create Chat Completion",
        _asks("messages", messages=_MESSAGES, stream=_STREAM),
        _answers("chat.completion", id={"type": "string"}, model={"type": "string"}, choices=_CHOICES),
    ),
    "/v1/completions": (
        "Create Completion",
        _asks("prompt", prompt=_TEXTS, stream=_STREAM),
        _answers("text_completion", id={"type": "string"}, model={"type": "string"}, choices=_CHOICES),
    ),
    "/v1/embeddings": (
        "Create Embedding",
        _asks("input", input=_TEXTS),
        _answers("list", data={"type": "array", "items": {"type": "object"}}),
    ),
}


def generation(path: str) -> Json:
    """The OpenAPI operation of a route that asks vLLM."""
    summary, asked, answered = _BODIES[path]
    content: Json = {"application/json": {"schema": answered}}
    if "stream" in asked["properties"]:
        content["text/event-stream"] = {"schema": _EVENT}
    return {
        "tags": ["generations"],
        "summary": summary,
        "description": "Asked of vLLM; the answer is passed on as it comes.",
        "operationId": summary.lower().replace(" ", "_"),
        "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
        "responses": {
            "200": {"description": "The answer of the model.", "content": content},
            **{str(status): {} for status in (404, 408, 502, 504)},
        },
    }
