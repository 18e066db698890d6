"""The api on a socket, and OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI

from tests.support.fakes.servers import Server
from tests.unit.api.conftest import KEY, Api


@pytest.fixture
async def server(api: Api) -> AsyncIterator[Server]:
    async with Server(api.app).running() as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client
