"""Routes whose JSON bodies are read strictly."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from shared import strict_json
from shared.strict_json import InvalidJson


class BadJson(HTTPException):
    """The body is not JSON, or not such as every reader understands. FastAPI passes on an HTTPException that is raised
    while it reads a body, and answers 400 without a reason to any other."""

    def __init__(self, error: InvalidJson) -> None:
        super().__init__(400, f"The body is not valid JSON: {error}.")
        self.param = error.field or None


class _Strict(Request):
    async def json(self) -> Any:
        try:
            return strict_json.loads(await self.body())
        except InvalidJson as error:
            raise BadJson(error) from None


class JsonRoute(APIRoute):
    """The route class of a router (`APIRouter(route_class=JsonRoute)`) that takes models as bodies. FastAPI's own takes
    NaN and half surrogate pairs, which cannot be stored or passed on."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_Strict(request.scope, request.receive))

        return strict
