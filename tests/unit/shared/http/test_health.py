"""/health/ready: what makes a service unready, and what only warns."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from shared.http import health
from tests.support.fakes.bus import FakeBus


async def ready(checks: dict[str, health.Check]) -> tuple[int, object]:
    app = FastAPI()
    health.mount(app, checks)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get(health.READY)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("problem", [None, "starting"])
async def test_without_a_bus_a_service_is_as_ready_as_before_and_says_so(problem: str | None) -> None:
    bus = FakeBus()
    checks: dict[str, health.Check] = {"start": lambda: problem, "bus": health.bus_check(bus)}
    expected = {"status": "waiting", "problems": {"start": "starting"}} if problem else {"status": "ready"}
    assert await ready(checks) == (503 if problem else 200, expected)
    bus.available = False
    warned = {**expected, "warnings": {"bus": "the message bus does not answer"}}
    assert await ready(checks) == (503 if problem else 200, warned)
