"""Is the service alive, is it ready, and what does it count: the same three routes on every service."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.bus import Bus

POLL_STALLED_SECONDS = 60.0

Check = Callable[[], str | None]
"""None when all is well, else what is wrong, in a few words."""


def mount(app: FastAPI, ready: dict[str, Check]) -> None:
    """Add /health/live, /health/ready and /metrics to `app`."""

    @app.get("/health/live", include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/health/ready", include_in_schema=False)
    async def readiness() -> JSONResponse:
        problems = {name: problem for name, check in ready.items() if (problem := check())}
        body = {"status": "waiting", "problems": problems} if problems else {"status": "ready"}
        return JSONResponse(body, status_code=503 if problems else 200)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def bus_check(bus: Bus) -> Check:
    """A consumer that was expelled from its group still answers pings, so ask for partitions and for its last poll."""

    def check() -> str | None:
        for subscriber in bus.required:
            consumer = getattr(subscriber, "consumer", None)
            if consumer is None:
                return "not connected"
            partitions = consumer.assignment()
            if not partitions:
                return "no partitions assigned"
            polls = [consumer.last_poll_timestamp(partition) or 0 for partition in partitions]
            if any(polls) and time.time() - max(polls) / 1000 > POLL_STALLED_SECONDS:
                return "no poll for a minute"
        return None

    return check
