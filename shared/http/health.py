"""Three routes that every service has: whether it is alive, whether it is ready, and its metrics."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.kafka.bus import Bus

LIVE, READY, METRICS = "/health/live", "/health/ready", "/metrics"
PATHS = (LIVE, READY, METRICS)
POLL_STALLED_SECONDS = 60.0

Check = Callable[[], str | None]
"""Returns None when all is well, else what is wrong, in a few words."""


def mount(app: FastAPI, ready: dict[str, Check], measure: Callable[[], Awaitable[None]] | None = None) -> None:
    """Add /health/live, /health/ready and /metrics to `app`; `measure` is awaited before every scrape."""

    @app.get(LIVE, include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get(READY, include_in_schema=False)
    async def readiness() -> JSONResponse:
        problems = {name: problem for name, check in ready.items() if (problem := check())}
        body = {"status": "waiting", "problems": problems} if problems else {"status": "ready"}
        return JSONResponse(body, status_code=503 if problems else 200)

    @app.get(METRICS, include_in_schema=False)
    async def metrics() -> Response:
        if measure is not None:
            await measure()
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def bus_check(bus: Bus) -> Check:
    """A check that every consumer has partitions and still polls. A ping is not enough, because a consumer that was
    expelled from its group still answers pings."""

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
