"""The api service with a database of its own, over a ledger and a bus in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from services.api.app import make_app
from services.api.database import ProjectionDatabase
from services.api.projection import Projection
from services.api.resources.dependencies import Dependencies
from tests.support.data.job_history import T0, DeliveredEvent, JobHistory
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore

URL = "http://api.test"
KEY = "key"


@dataclass
class Api:
    """A running api. `restart` replaces it by a new process over the same ledger, `delete_database` by one whose
    database was deleted."""

    path: Path
    objects: FakeStore
    bus: FakeBus
    clock: Clock
    keys: tuple[str, ...] = (KEY,)
    bus_away: float | None = None
    """For how many seconds the bus has been away."""
    largest_file: int = 3 * 2**20

    def start(self) -> None:
        self.database = ProjectionDatabase(self.path)
        self.projection = Projection(self.database, self.objects, discover_seconds=10, bus_away=lambda: self.bus_away)
        self._app: FastAPI | None = None
        self._client: httpx.AsyncClient | None = None

    @property
    def app(self) -> FastAPI:
        """Made when it is first asked for: it takes a tenth of a second, and many tests make another."""
        if self._app is None:
            dependencies = Dependencies(
                self.database, self.projection, self.objects, self.bus, URL, largest_file=self.largest_file
            )
            self._app = make_app(dependencies, self.keys)
        return self._app

    @property
    def client(self) -> httpx.AsyncClient:
        if self._client is None:
            headers = {"authorization": f"Bearer {KEY}"}
            self._client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=URL, headers=headers)
        return self._client

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.aclose()
        await self.database.close()

    async def restart(self) -> None:
        await self.stop()
        self.start()

    async def delete_database(self) -> None:
        await self.stop()
        for file in self.path.parent.glob(self.path.name + "*"):
            file.unlink()
        self.start()

    async def take(self, events: Iterable[DeliveredEvent]) -> None:
        for delivered in events:
            await self.projection.take(delivered.event, delivered.delivery)

    def start_discovering_every(self, seconds: float) -> None:
        self.projection._discover_seconds = seconds

    async def sql(self, statement: str, *values: Any) -> None:
        """Change the database behind the back of the api."""
        await self.database._write(lambda connection: connection.execute(statement, values))

    async def damage(self, history: JobHistory, state: str) -> None:
        """Replace what the database holds of a job."""
        await self.sql("UPDATE jobs SET state = ? WHERE job_id = ?", state, history.job_id)

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    clock = Clock(T0 + 3600)
    running = Api(tmp_path / "state" / "api.sqlite3", FakeStore(clock=clock), FakeBus(), clock)
    running.start()
    yield running
    await running.stop()


@pytest.fixture
async def history(api: Api) -> JobHistory:
    """A job that has succeeded."""
    done = JobHistory()
    await done.write_documents(api.objects)
    await api.take(done.events)
    return done


@pytest.fixture
async def training_job(api: Api) -> JobHistory:
    """A job in the middle of its training."""
    running = JobHistory(2)
    await running.write_documents(api.objects, until="validate")
    await api.take(running.events[:6])
    return running


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, which must be a complete OpenAI envelope."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] and body["error"]["type"]
    assert len(answer.headers["x-request-id"]) == 32
    return dict(body["error"])
