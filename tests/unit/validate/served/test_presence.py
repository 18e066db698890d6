"""A render server that does not answer: jobs wait for it outside of their slots, say so, and go on without it in the
end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from services.validate.served import Presence
from services.validate.served import client as module
from services.validate.served.client import RenderServer, Silent
from services.validate.work import ValidateWork
from shared.errors import InputError, TransientError
from shared.settings import ModelSettings, RenderSettings, Settings
from tests.support.data.datasets import good, lines
from tests.support.data.jobs import make_attempt, make_job
from tests.support.fakes.clock import Clock
from tests.support.fakes.render import FakeRender
from tests.support.fakes.store import FakeStore

MODEL = "acme/tiny-instruct"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def stage(base: Path, objects: FakeStore, url: str, clock: Clock, **render: float) -> ValidateWork:
    settings = Settings(
        _env_file=None,
        model=ModelSettings(id=MODEL, path=str(base)),
        render=RenderSettings.model_validate({"url": url} | render),
    )
    return ValidateWork(objects, settings, clock=clock)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Presence.look, "__defaults__", (0.1,))


async def test_a_job_leaves_its_slot_while_the_render_server_is_away_and_goes_on_without_it_in_the_end(
    objects: FakeStore, base: Path, clock: Clock
) -> None:
    work = stage(base, objects, NOBODY, clock)
    attempt, _ = make_attempt(make_job(dataset=objects.add("d", good(20)), base=MODEL), "validate")
    for _ in range(3):
        with pytest.raises(TransientError, match=r"server at http://.* \(TUNESTREAM_RENDER__URL\) does not answer"):
            await work(attempt)
        clock.now += 50
    event = await work(attempt)

    assert event.served is not None
    assert event.served.not_asked == "the render server did not answer within 120 s"
    assert event.served.probe is not None

    next_one, _ = make_attempt(make_job(dataset=objects.add("e", good(20)), base=MODEL, job_id="ftjob-2"), "validate")
    event = await work(next_one)  # does not wait anew
    assert event.served is not None and event.served.not_asked is not None


async def test_a_server_that_comes_back_is_asked_and_waited_for_again(
    objects: FakeStore, base: Path, clock: Clock
) -> None:
    with FakeRender(base, MODEL).running() as server:
        work = stage(base, objects, server.url, clock)
        attempt, _ = make_attempt(make_job(dataset=objects.add("d", good(20)), base=MODEL), "validate")
        server.outages = 10**6
        with pytest.raises(TransientError):
            await work(attempt)
        server.outages = 0
        clock.now += 1000
        event = await work(attempt)
        assert event.served is not None and event.served.turns == 20

        server.outages = 10**6
        with pytest.raises(TransientError):
            await work(attempt)


async def test_a_file_with_problems_is_not_kept_waiting(objects: FakeStore, base: Path, clock: Clock) -> None:
    attempt, _ = make_attempt(make_job(dataset=objects.add("d", good(20) + lines({})), base=MODEL), "validate")
    with pytest.raises(InputError):
        await stage(base, objects, NOBODY, clock)(attempt)


def test_a_server_that_takes_connections_and_never_answers_holds_nobody_for_long(black_hole: str) -> None:
    server = RenderServer(black_hole, MODEL, threading.Event())
    began = time.monotonic()
    with pytest.raises(Silent):
        server.version(0.2)
    assert time.monotonic() - began < 5
    server.close()


def test_a_request_to_a_server_that_hangs_is_not_repeated_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.0)

    def hang(self: httpx.Client, *_: object, **__: object) -> httpx.Response:
        clock.now += module.TIMEOUT
        raise httpx.ReadTimeout("a test said so")

    monkeypatch.setattr(httpx.Client, "request", hang)
    server = RenderServer("http://x", MODEL, threading.Event(), pauses=(0.0,) * 9, clock=clock)
    with pytest.raises(Silent):
        server._json("POST", "/", server._pauses, {})
    assert clock.now <= module.PATIENCE + module.TIMEOUT
