"""A fake api service that answers every request with a description of that request. Real HTTP on loopback, in the event
loop of the test."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from tests.support.fakes.servers import Server


class FakeApi:
    """Answers every request with its method, path, query and some of its headers."""

    def __init__(self) -> None:
        self.server = Server(self._app())
        self.bodies: list[bytes] = []

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.api_route("/{path:path}", methods=["GET", "POST", "DELETE"])
        async def echo(request: Request, path: str) -> JSONResponse:
            self.bodies.append(await request.body())
            seen = {
                "method": request.method,
                "path": request.scope["raw_path"].decode(),
                "query": request.url.query,
                "authorization": request.headers.get("authorization"),
                "content_type": request.headers.get("content-type"),
                "traceparent": request.headers.get("traceparent"),
            }
            return JSONResponse(seen, status_code=201, headers={"x-should-retry": "false", "x-request-id": "api's own"})

        return app
