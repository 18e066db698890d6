from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fakes.clock import Clock
from tests.unit.api.webhooks.world import Receiver, Replica, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    # the client takes signatures of the last minutes alone, by the clock of this machine
    running = World(tmp_path, Clock(time.time()))
    async with running.stack:
        yield running


@pytest.fixture
async def api(world: World) -> Replica:
    return await world.replica()


@pytest.fixture
async def receiver(world: World) -> Receiver:
    return await world.receiver()
