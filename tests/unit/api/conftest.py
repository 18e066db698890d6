"""The api service with a database of its own, over a ledger and a bus in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.api.app import make_app
from services.api.projection import Projection
from services.api.routes.desk import Desk
from services.api.store import Store
from tests.support.bus import FakeBus
from tests.support.clock import Clock
from tests.support.job_story import T0, Told
from tests.support.store import FakeStore

URL = "http://api.test"


@dataclass
class Api:
    """A running api. `restart` is a new process over the same ledger, `forget` one whose database was deleted."""

    path: Path
    objects: FakeStore
    bus: FakeBus
    clock: Clock
    keys: tuple[str, ...] = ()

    def start(self) -> None:
        self.store = Store(self.path)
        self.projection = Projection(self.store, self.objects, self.clock, discover_seconds=10)
        desk = Desk(self.store, self.projection, self.objects, self.bus, self.clock, URL)
        transport = httpx.ASGITransport(make_app(desk, self.keys))
        self.client = httpx.AsyncClient(transport=transport, base_url=URL)

    async def stop(self) -> None:
        await self.client.aclose()
        await self.store.close()

    async def restart(self) -> None:
        await self.stop()
        self.start()

    async def forget(self) -> None:
        await self.stop()
        for file in self.path.parent.glob(self.path.name + "*"):
            file.unlink()
        self.start()

    async def take(self, events: Iterable[Told]) -> None:
        for told in events:
            await self.projection.take(told.event, told.delivery)

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
