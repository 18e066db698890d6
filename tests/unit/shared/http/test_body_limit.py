"""Which limit the body of a request has, by its path."""

from __future__ import annotations

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from shared.http.body_limit import DEFAULT_LIMIT, BodyLimit


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/", DEFAULT_LIMIT),
        ("/large", 2 * DEFAULT_LIMIT),
        ("/large/below", 2 * DEFAULT_LIMIT),
        ("/larger", DEFAULT_LIMIT),
        ("/x/large", DEFAULT_LIMIT),
        ("/uploads", DEFAULT_LIMIT),
        ("/uploads/one", DEFAULT_LIMIT),
        ("/uploads/one/complete", DEFAULT_LIMIT),
        ("/uploads/one/parts", 3 * DEFAULT_LIMIT),
        ("/uploads/other/parts/below", 3 * DEFAULT_LIMIT),
        ("/uploads/one/two/parts", DEFAULT_LIMIT),
    ],
)
async def test_a_limit_holds_for_its_path_and_all_below(path: str, most: int) -> None:
    limits = {"/large": 2 * DEFAULT_LIMIT, "/uploads/*/parts": 3 * DEFAULT_LIMIT}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(BodyLimit(app, limits)), base_url="http://x") as client:
        assert (await client.post(path, content=bytes(most))).text == str(most)
        assert (await client.post(path, content=bytes(most + 1))).status_code == 413
