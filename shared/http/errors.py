"""The errors of the HTTP services in OpenAI's envelope: `{"error": {"message", "type", "param", "code"}}`.

| status | code | |
|---|---|---|
| 400 | `invalid_json` | the body is not JSON, or holds what not every reader of JSON takes; `param` names the field |
| 400 | `invalid_type`, `invalid_value` | a parameter or a field of the body is wrong; `param` names it |
| 400 | `missing_required_parameter`, `unknown_parameter` | it is missing, or nobody knows it |
| 400 | of the `InputError` | the user's data or settings are wrong |
| 400 | `invalid_project` | the header `OpenAI-Project` is no id of a project |
| 401 | `missing_api_key`, `invalid_api_key` | with `www-authenticate` |
| 401 | `mismatched_project` | the header `OpenAI-Project` names another project than the key's |
| 403 | `insufficient_permissions` | the key lacks a right, which the message names |
| 404 | `unknown_url`, `model_not_found` | |
| 405 | `method_not_supported` | with `allow` |
| 413 | `body_too_large` | |
| 429 | `rate_limit_exceeded` | with `retry-after`; where it is a limit of the key, with `retry-after-ms`, too |
| 500 | `internal_error` | a bug; the message names the request id |
| 503 | `service_unavailable` | with `retry-after` |

A service adds its own exceptions with `ErrorTable(...)`, and answers with `ApiError` where it decides itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from shared import telemetry
from shared.errors import InputError, TransientError, TunestreamError
from shared.http.json_route import BadJson
from shared.http.responses import JsonResponse

log = logging.getLogger(__name__)

RETRY_SECONDS = 2
"""When a client may try again. The official client obeys it."""
MOST_CHARS = 200  # of a parameter's name


class ApiError(TunestreamError):
    """The answer to a request: its `status`, the fields of the envelope, and `headers` that are sent along."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def envelope(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JsonResponse:
        return JsonResponse(self.envelope(), status_code=self.status, headers=self.headers)


Translation: TypeAlias = Callable[[Any, Scope], ApiError]
"""Maps an exception, and the scope of the request that raised it, to the answer."""


class ErrorTable:
    """Maps classes of exceptions to answers. The most derived class that the table holds decides."""

    def __init__(self, more: Mapping[type[Exception], Translation] | None = None) -> None:
        """`more`: the exceptions of one service, beside those that all services share."""
        self._translations: dict[type[Exception], Translation] = {**SHARED, **(more or {})}

    def answer(self, error: Exception, scope: Scope) -> ApiError:
        """The answer to `error`, which was raised while the request `scope` was handled."""
        kind = next(kind for kind in type(error).__mro__ if kind in self._translations)
        return self._translations[kind](error, scope)

    def install(self, app: FastAPI) -> None:
        """Answer the exceptions of the table in `app`. `RequestId` answers all others, which are bugs."""

        async def handle(request: Request, error: Exception) -> JsonResponse:
            return self.answer(error, request.scope).response()

        for kind in self._translations:
            if kind is not Exception:
                app.add_exception_handler(kind, handle)


def request_id(scope: Scope) -> str:
    """The trace id of a request. It is the `x-request-id` of the answer."""
    return telemetry.trace_id(scope["state"]["traceparent"])


def _input(error: InputError, scope: Scope) -> ApiError:
    status = 404 if error.code == "model_not_found" else 400
    return ApiError(status, error.message, code=error.code, param=error.param)


def _unavailable(error: TransientError, scope: Scope) -> ApiError:
    log.warning("a request was answered with 503", extra={"reason": type(error).__name__})
    message = "The object store or the database does not answer right now; try again in a moment."
    return ApiError(503, message, code="service_unavailable", headers={"retry-after": str(RETRY_SECONDS)})


def _invalid(error: RequestValidationError, scope: Scope) -> ApiError:
    """The answer to a request whose parameters are wrong: it names the first of them, in OpenAI's words."""
    problems = error.errors()
    body = error.body if problems[0]["loc"][0] == "body" else None
    first, kind = _path(problems[0], body), problems[0]["type"]
    if not first:
        return ApiError(400, "The body must be a JSON object; send one, as application/json.", code="invalid_type")
    shown = first[:MOST_CHARS]
    if kind == "missing":
        message = f"Missing required parameter: '{shown}'."
        return ApiError(400, message, param=shown, code="missing_required_parameter")
    if kind == "extra_forbidden":
        return ApiError(400, f"Unknown parameter: '{shown}'.", param=shown, code="unknown_parameter")
    # a value that may be one of several things has a problem with each of them
    same = [problem for problem in problems if _path(problem, body) == first]
    wrong_type = all(problem["type"].endswith("_type") for problem in same)
    reasons = ", or ".join(dict.fromkeys(_reason(problem) for problem in same))
    what, code = ("type", "invalid_type") if wrong_type else ("value", "invalid_value")
    return ApiError(400, f"Invalid {what} for '{shown}': {reasons}.", param=shown, code=code)


def _reason(problem: Any) -> str:
    message = str(problem["msg"])
    return message[:1].lower() + message[1:]


def _path(problem: Any, body: Any) -> str:
    """The name of the parameter. pydantic's location may go on with the alternatives of a value, which are no part of
    it; of a query the name is all."""
    location: Sequence[Any] = problem["loc"][1:]
    if problem["loc"][0] != "body":
        return ".".join(map(str, location))
    found = list[str]()
    for part in location:
        inside = isinstance(body, dict) and part in body
        if inside or (isinstance(body, list) and isinstance(part, int) and part < len(body)):
            body = body[part]
        elif problem["type"] != "missing" or part != location[-1]:
            break
        found.append(str(part))
    return ".".join(found)


def _routing(error: HTTPException, scope: Scope) -> ApiError:
    asked = f"{scope['method']} {scope['path'][:200]}"
    if error.status_code == 404:
        return ApiError(404, f"Unknown request URL: {asked}.", code="unknown_url")
    if error.status_code == 405:
        allowed = ", ".join(_methods(scope))
        message = f"Not allowed to {asked}; this URL takes {allowed}."
        return ApiError(405, message, code="method_not_supported", headers={"allow": allowed})
    code = "body_too_large" if error.status_code == 413 else None
    return ApiError(error.status_code, str(error.detail), code=code, headers=error.headers)


def _methods(scope: Scope) -> list[str]:
    """The methods that the URL of a request takes. The router knows only those of the first route of that path."""
    routes = [route for route in scope["app"].routes if route.matches(scope)[0] is Match.PARTIAL]
    return sorted({method for route in routes for method in route.methods or ()})


def _bad_json(error: BadJson, scope: Scope) -> ApiError:
    return ApiError(400, error.detail, code="invalid_json", param=error.param)


def _bug(error: Exception, scope: Scope) -> ApiError:
    log.error("a request failed", exc_info=error, extra={"trace_id": request_id(scope)})
    message = f"The server had an error; it is in its log under request id {request_id(scope)}."
    return ApiError(500, message, code="internal_error")


SHARED: dict[type[Exception], Translation] = {
    ApiError: lambda error, scope: error,
    InputError: _input,
    TransientError: _unavailable,
    RequestValidationError: _invalid,
    HTTPException: _routing,
    BadJson: _bad_json,
    Exception: _bug,
}
