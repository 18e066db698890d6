"""The api on a socket, and OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from openai import AsyncOpenAI

from services.api.app import make_app
from services.api.resources.dependencies import Dependencies
from services.ingest.requests import Requests
from shared.events import Reference, StoredFile
from shared.ids import derive
from shared.settings import ModelSettings
from shared.stages.ledger import file_content_key, file_meta_key
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.servers import Server
from tests.unit.api.conftest import URL, Api

BASE = "acme/tiny"
MODEL = ModelSettings(id=BASE, aliases={"gpt-4o-mini-2024-07-18": BASE}, organization="acme")


@dataclass
class Tuning:
    """An instance of the api on a socket, over the ledger of `api`."""

    api: Api
    url: str
    clients: list[AsyncOpenAI] = field(default_factory=list)
    files: int = 0

    def client(self, project: str | None = None) -> AsyncOpenAI:
        client = AsyncOpenAI(base_url=f"{self.url}/v1", api_key="k", project=project, max_retries=0)
        self.clients.append(client)
        return client

    async def file(
        self,
        name: str = "support.jsonl",
        *,
        project: str = "default",
        purpose: str = "fine-tune",
        expires_at: float | None = None,
    ) -> str:
        """Store a file as the Files API does. Returns its id."""
        self.files += 1
        file_id = f"file-{derive('test', self.url, self.files)}"
        content: Reference = await self.api.objects.put(file_content_key(file_id), f"content {self.files}".encode())
        meta = StoredFile(
            file_id=file_id,
            project=project,
            filename=name,
            purpose=purpose,
            created_at=self.api.clock.now,
            content=content,
            expires_at=expires_at,
        )
        await self.api.objects.put(file_meta_key(file_id), meta.model_dump_json().encode())
        return file_id

    async def ingest(self) -> None:
        """Ingest makes the jobs that were asked for."""
        await Requests(self.api.objects, FakeBus()).make_jobs()

    def asked(self) -> list[str]:
        """The jobs that were asked for."""
        return [
            key.removeprefix("ingest/asked/").removesuffix(".json")
            for key in self.api.objects.held
            if key.startswith("ingest/asked/")
        ]


@pytest.fixture
def tracked() -> frozenset[str]:
    """The integrations that the deployment serves."""
    return frozenset()


@pytest.fixture
async def tuning(api: Api, tracked: frozenset[str]) -> AsyncIterator[Tuning]:
    dependencies = Dependencies(api.database, api.projection, api.objects, api.bus, URL, MODEL, tracked=tracked)
    async with Server(make_app(dependencies, ())).running() as server:
        running = Tuning(api, server.url)
        yield running
        for client in running.clients:
            await client.close()


@pytest.fixture
def client(tuning: Tuning) -> AsyncOpenAI:
    return tuning.client()
