"""Errors as the OpenAI API words them: `{"error": {"message", "type", "param", "code"}}` on every route.

EngineUnavailable    (a TransientError) vLLM is starting, restarting, or does not answer
└── EngineAsleep     a training has the GPU (`gpu.share = alternate`)
AdapterRefused       vLLM does not take an adapter that passed our checks
ApiError             an answer that is decided where it is raised
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from shared.errors import CorruptObject, InputError, TransientError, TunestreamError

log = logging.getLogger(__name__)

RETRY_AFTER = 5  # seconds; the official client obeys it and tries twice more
ASLEEP_RETRY_AFTER = 30  # a training takes minutes to hours; the official client does not obey more than 60


class EngineUnavailable(TransientError):
    """vLLM does not answer for now."""


class EngineAsleep(EngineUnavailable):
    """vLLM has let go of the GPU until a training is over."""


class AdapterRefused(TunestreamError):
    """vLLM answered that it cannot load an adapter."""


class ApiError(TunestreamError):
    """`status` and the fields of the envelope; `headers` are sent along."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or {}


def model_not_found(model: str) -> InputError:
    return InputError(
        "model_not_found",
        f"The model `{model[:200]}` does not exist. GET /v1/models lists what can be asked for.",
        "model",
    )


def envelope(error: ApiError) -> dict[str, Any]:
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def answer(error: ApiError) -> JSONResponse:
    return JSONResponse(envelope(error), status_code=error.status, headers=error.headers)


def translate(error: Exception) -> ApiError:
    """The answer to whatever was raised while a request was handled."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputError):
        status = 404 if error.code == "model_not_found" else 400
        return ApiError(status, error.message, code=error.code, param=error.param)
    if isinstance(error, EngineAsleep):
        headers = {"retry-after": str(ASLEEP_RETRY_AFTER)}
        return ApiError(503, f"{error}. Try again.", code="model_sleeping", headers=headers)
    if isinstance(error, TransientError):
        return ApiError(503, f"{error}. Try again.", code="unavailable", headers={"retry-after": str(RETRY_AFTER)})
    if isinstance(error, AdapterRefused | CorruptObject):
        log.error("adapter unusable", exc_info=error)
        message = (
            "The adapter of this model is damaged, or vLLM refuses it; the log of the inference service says more."
        )
        return ApiError(500, message, code="adapter_unusable")
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return ApiError(422, f"{place or 'body'}: {first['msg']}", code="invalid_request", param=place or None)
    if isinstance(error, HTTPException):
        return _routing(error)
    log.error("request failed", exc_info=error, extra={"reason": type(error).__name__})
    return ApiError(500, f"The server met an error that is a bug ({type(error).__name__}).", code="internal_error")


def _routing(error: HTTPException) -> ApiError:
    messages = {404: "There is no such route here.", 405: "This route does not take that method."}
    codes = {404: "unknown_url", 405: "method_not_allowed"}
    return ApiError(
        error.status_code,
        messages.get(error.status_code, str(error.detail)),
        code=codes.get(error.status_code),
        headers=dict(error.headers or {}),
    )


def install(app: FastAPI) -> None:
    """Answer what is foreseen to go wrong in `app` with the envelope; the rest is `exchange.Front`'s."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return answer(translate(error))

    for kind in (TunestreamError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)
