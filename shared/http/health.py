"""Routes that every service has: whether it is alive and ready, and, on a private port, its metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.kafka.bus import Bus

LIVE, READY, METRICS = "/health/live", "/health/ready", "/metrics"
PATHS = (LIVE, READY)
"""What needs no key."""

Check = Callable[[], str | None]
"""Returns None when all is well, else what is wrong, in a few words."""


@dataclass(frozen=True)
class Advisory:
    """A check whose problem is shown, but does not make the service unready."""

    check: Check

    def __call__(self) -> str | None:
        return self.check()


def mount(app: FastAPI, ready: dict[str, Check]) -> None:
    """Add /health/live and /health/ready to `app`.

    /health/ready answers 503 while a check of `ready` finds a problem. What an `Advisory` finds is only in the body,
    as `warnings`.
    """

    @app.get(LIVE, include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get(READY, include_in_schema=False)
    async def readiness() -> JSONResponse:
        problems: dict[str, str] = {}
        warnings: dict[str, str] = {}
        for name, check in ready.items():
            if problem := check():
                (warnings if isinstance(check, Advisory) else problems)[name] = problem
        body: dict[str, object] = {"status": "waiting" if problems else "ready"}
        body |= {"problems": problems} if problems else {}
        body |= {"warnings": warnings} if warnings else {}
        return JSONResponse(body, status_code=503 if problems else 200)


def mount_metrics(app: FastAPI, measure: Callable[[], Awaitable[None]] | None = None) -> None:
    """Add /metrics to `app`; `measure` is awaited before every scrape. They need no key and name models, so `app` must
    not be one that the public reaches."""

    @app.get(METRICS, include_in_schema=False)
    async def metrics() -> Response:
        if measure is not None:
            await measure()
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def bus_check(bus: Bus) -> Check:
    """A check that everything is consumed. It only warns: a stage also works from the ledger, and a model is served
    without a bus."""
    return Advisory(bus.problem)
