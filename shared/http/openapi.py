"""The OpenAPI document of an HTTP service, made of its routes.

FastAPI knows paths, parameters, bodies and the answers that a route declares. What holds for every route is added
here, and nowhere else: API keys, `OpenAI-Project`, the envelope of errors, `x-request-id`, and the errors that any
request can meet. A route declares only what is its own, such as `responses={409: {}}`. A route that FastAPI does not
know describes itself, see `Described`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.routing import Route

Json: TypeAlias = dict[str, Any]
VERSION = "1"
METHODS = ("get", "put", "post", "delete", "patch")
KEY = "api_key"

ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("BadRequest", "Something in the request is wrong: `param` names it, and `message` says what to change."),
    401: ("Unauthorized", "There is no API key, or not a valid one, or `OpenAI-Project` names another project."),
    403: ("Forbidden", "The API key lacks the right that this route needs; `message` names it."),
    404: ("NotFound", "It does not exist in the project of the API key."),
    408: ("RequestTimeout", "The body did not arrive in time."),
    409: ("Conflict", "It was changed by somebody else meanwhile; nothing was done."),
    413: ("TooLarge", "The body is too large."),
    429: ("TooManyRequests", "A limit is reached, of the API key or of the server. Try again after `retry-after`."),
    500: ("InternalError", "A bug, or damaged data; the server's log has it under the `x-request-id`."),
    502: ("BadGateway", "What the answer needs is damaged, or comes from a server that broke."),
    503: ("Unavailable", "The object store or the model server is away. Try again after `retry-after`."),
    504: ("GatewayTimeout", "The model took too long to answer."),
}
"""By status: the name of the answer in the document, and what it means."""
ANYWHERE = (400, 401, 403, 413, 429, 500, 503)
"""What a request to any route may get."""

ENVELOPE: Json = {
    "title": "Error",
    "description": "OpenAI's envelope of an error.",
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
            "properties": {
                "message": {"type": "string", "description": "What is wrong, and what to do, for a person."},
                "type": {"enum": ["invalid_request_error", "rate_limit_error", "server_error"]},
                "param": {"type": ["string", "null"], "description": "The parameter or field that is wrong."},
                "code": {"type": ["string", "null"], "description": "Which error it is, for a program."},
            },
        }
    },
}
HEADERS: Json = {
    "x-request-id": {
        "description": "The trace id of the request, to look for in traces and logs.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
    "retry-after": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "www-authenticate": {"description": "How to send a key.", "required": True, "schema": {"const": "Bearer"}},
}
MORE_HEADERS = {401: ("www-authenticate",), 429: ("retry-after",), 502: ("retry-after",), 503: ("retry-after",)}
PROJECT: Json = {
    "name": "OpenAI-Project",
    "in": "header",
    "required": False,
    "description": "The project of the request: that of the key, or with an admin key any other.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"},
}


@runtime_checkable
class Described(Protocol):
    """The endpoint of a route that FastAPI does not know."""

    @property
    def operation(self) -> Json:
        """The OpenAPI operation of the only method that it takes."""


class Answer(BaseModel):
    """A JSON object that a route answers, as the document shows it. Views make it; a test holds both together."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class DocumentedApp(FastAPI):
    """An app whose document says what every route can answer."""

    def openapi(self) -> Json:
        if self.openapi_schema is None:
            document = super().openapi()
            for path, method, operation in _described(self):
                document["paths"].setdefault(path, {})[method] = operation
            _complete(document)
            self.openapi_schema = document
        return self.openapi_schema


def operation_id(route: APIRoute) -> str:
    """The name of an operation in the document, and in clients that are made of it."""
    return route.name


def answers_with(*media_types: str) -> dict[int | str, Json]:
    """The `responses` of a route whose answer is no JSON."""
    return {200: {"description": "The bytes.", "content": {each.split(";")[0]: _BYTES for each in media_types}}}


_BYTES: Json = {"schema": {"type": "string", "format": "binary"}}


def _described(app: FastAPI) -> Iterator[tuple[str, str, Json]]:
    for route in app.routes:
        if isinstance(route, Route) and isinstance(route.endpoint, Described):
            for method in route.methods or ():
                yield route.path, method.lower(), {**route.endpoint.operation}


def _complete(document: Json) -> None:
    """Add to the document what holds for all routes."""
    document["security"] = [{KEY: []}]
    for path, methods in document["paths"].items():
        for method in METHODS:
            if operation := methods.get(method):
                _complete_operation(path, operation)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own errors, which nobody gets
        schemas.pop(unused, None)
    schemas["Error"] = ENVELOPE
    components["responses"] = {name: _error(status, about) for status, (name, about) in ERRORS.items()}
    components["headers"] = HEADERS
    components["parameters"] = {"Project": PROJECT}
    components["securitySchemes"] = {
        KEY: {"type": "http", "scheme": "bearer", "description": "An API key: `tunestream keys create` makes one."}
    }


def _complete_operation(path: str, operation: Json) -> None:
    parameters = operation.setdefault("parameters", [])
    declared = {int(status) for status in operation["responses"]} - {422}
    # what the path or `after` names may not exist
    named = "{" in path or any(each.get("name") == "after" for each in parameters)
    failures = {status for status in declared if status >= 400} | {*ANYWHERE} | ({404} if named else set())
    answers = {str(status): operation["responses"][str(status)] for status in sorted(declared) if status < 400}
    for answer in answers.values():
        answer["headers"] = _headers("x-request-id")
    for status in sorted(failures):
        answers[str(status)] = {"$ref": f"#/components/responses/{ERRORS[status][0]}"}
    operation["responses"] = answers
    parameters.append({"$ref": "#/components/parameters/Project"})


def _error(status: int, about: str) -> Json:
    return {
        "description": about,
        "headers": _headers("x-request-id", *MORE_HEADERS.get(status, ())),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
