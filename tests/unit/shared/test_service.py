"""Where a service listens: users reach its interface, and only the operator its metrics."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from shared.access.keyring import Keyring
from shared.access.rights import RightsTable
from shared.http.app import make_http_app
from shared.service import Parts, faces
from shared.settings import Settings
from tests.support.fakes.store import FakeStore

PUBLIC, PRIVATE = ("0.0.0.0", 8000), ("127.0.0.1", 8106)
SETTINGS = Settings.model_validate({"health": {"host": PRIVATE[0], "port": PRIVATE[1]}})


async def nothing() -> None: ...


async def statuses(app: FastAPI, *paths: str) -> list[int]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.test") as client:
        return [(await client.get(path)).status_code for path in paths]


@pytest.mark.parametrize(("keys", "hidden"), [((), 404), (("a key",), 401)])
async def test_the_metrics_of_a_service_with_users_are_at_another_address(keys: tuple[str, ...], hidden: int) -> None:
    parts = Parts(app=make_http_app("x", Keyring(FakeStore(), keys), rights=RightsTable()), address=PUBLIC)

    (public, at), (private, aside) = faces("x", SETTINGS, parts, {}, nothing)

    assert (at, aside) == (PUBLIC, PRIVATE)
    paths = ("/health/live", "/health/ready", "/metrics")
    assert await statuses(public, *paths) == [200, 200, hidden]
    assert await statuses(private, *paths) == [200, 200, 200]


async def test_a_service_without_users_has_the_private_address_only() -> None:
    [(private, at)] = faces("x", SETTINGS, Parts(), {"bus": lambda: "is away"}, nothing)

    assert at == PRIVATE
    assert await statuses(private, "/health/live", "/health/ready", "/metrics") == [200, 503, 200]
