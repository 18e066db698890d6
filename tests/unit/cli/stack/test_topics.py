"""Waiting for the broker before the topics are created."""

from __future__ import annotations

import pytest

from cli.stack import topics
from shared.errors import ConfigError
from shared.settings import BusSettings
from tests.support.fakes.servers import unused_port


async def test_without_a_broker_the_wait_ends_with_an_error_that_names_the_address() -> None:
    address = f"127.0.0.1:{unused_port()}"
    with pytest.raises(ConfigError) as caught:
        await topics.ensure(BusSettings(bootstrap=address), wait_seconds=0.0)
    assert address in str(caught.value)
    assert "TUNESTREAM_BUS__BOOTSTRAP" in str(caught.value)


async def test_a_broker_that_starts_later_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    async def create(settings: BusSettings) -> None:
        calls.append(settings.bootstrap)
        if len(calls) < 3:
            raise ConnectionRefusedError

    monkeypatch.setattr(topics, "create_topics", create)
    await topics.ensure(BusSettings(bootstrap="kafka:9092"), wait_seconds=30.0)
    assert calls == ["kafka:9092"] * 3
