"""The world of a sweep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.data.job_history import T0
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.clock import Clock
from tests.unit.api.conftest import Api
from tests.unit.api.sweeps.world import KillingStore, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = Clock(T0 + 3600)
    api = Api(tmp_path / "state" / "api.sqlite3", KillingStore(clock=clock), FakeBus(), clock)
    api.start()
    world = World(api)
    world.start()
    yield world
    await api.stop()
