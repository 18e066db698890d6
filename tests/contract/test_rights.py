"""Every route of both services needs a right, and a route that no table names is the administrator's."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from services.api.app import RIGHTS as API_RIGHTS
from services.inference.app import RIGHTS as INFERENCE_RIGHTS
from shared.access.rights import RightsTable
from shared.http import health
from tests.contract.test_http_face import SERVICES, open_app
from tests.support.data.keys import add_key, secret
from tests.support.fakes.store import FakeStore

TABLES = {"api": API_RIGHTS, "inference": INFERENCE_RIGHTS}
PUBLIC = {*health.PATHS, "/openapi.json"}
ADMINS = ("/keys", "/deployments", "/probe", "/v1/fine_tuning/checkpoints", "/v1/organization")
"""What only an administrator may do, but for a look at deployments. The probes are routes of the test, which no table
names."""
SERVED = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models")
"""What a key that may only `serve` can ask for, but for deletions."""


def routes_of(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route that needs a key, its parameters filled in."""
    found = []
    for route in app.routes:
        assert isinstance(route, Route), f"this test cannot walk {route}"
        if route.path not in PUBLIC:
            path = re.sub(r"\{[^}]*\}", "x", route.path)
            found += [(method, path) for method in sorted(route.methods or ())]
    return found


def below(path: str, tops: tuple[str, ...]) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in tops)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("right", ["serve", "train", "admin", "unknown"])
async def test_each_route_takes_the_keys_that_it_should(service: str, right: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        objects = FakeStore()
        app = await open_app(service, stack, tmp_path, (), objects)
        await add_key(objects, "b", rights=(right,))
        transport = httpx.ASGITransport(app)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://x.test"))
        routes = routes_of(app)
        assert len(routes) > 10
        for method, path in routes:
            may = {
                "serve": below(path, SERVED) and method != "DELETE",
                "train": not below(path, ADMINS) or (method in ("GET", "HEAD") and below(path, ("/deployments",))),
                "admin": True,
                "unknown": False,
            }[right]
            answer = await client.request(method, path, headers={"authorization": f"Bearer {secret('b')}"})
            refused = answer.status_code == 403
            assert refused != may, f"{right}: {method} {path} answered {answer.status_code}"
            assert (await client.request(method, path)).status_code == 401
            if refused and method != "HEAD":
                assert answer.json()["error"]["code"] == "insufficient_permissions"


@pytest.mark.parametrize("service", SERVICES)
def test_no_line_of_a_table_is_hidden_by_one_above_it(service: str) -> None:
    lines = TABLES[service].lines
    for at, line in enumerate(lines):
        path = line.path.removesuffix("*")
        method = "POST" if line.method == "*" else line.method
        assert RightsTable(lines).needed(method, path) == line.rights, f"line {at}: {line}"
