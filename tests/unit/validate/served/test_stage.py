"""The stage with a render server: what its event and its report say, and how a difference ends the job."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.validate.work import ValidateWork
from shared.errors import InputError
from shared.settings import ModelSettings, RenderSettings, Settings
from tests.support.data.byte_base import CHATML
from tests.support.data.datasets import good
from tests.support.data.jobs import make_attempt, make_job
from tests.support.fakes.render import VERSION, FakeRender
from tests.support.fakes.store import FakeStore
from tests.support.scrape import scrape
from tests.support.spans import Spans

MODEL = "acme/tiny-instruct"


@pytest.fixture
def server(base: Path) -> Iterator[FakeRender]:
    with FakeRender(base, MODEL).running() as fake:
        yield fake


Run = Callable[[FakeStore, str | None], ValidateWork]


@pytest.fixture
def stage(base: Path) -> Run:
    def made(objects: FakeStore, url: str | None) -> ValidateWork:
        settings = Settings(
            _env_file=None, model=ModelSettings(id=MODEL, path=str(base)), render=RenderSettings(url=url)
        )
        return ValidateWork(objects, settings)

    return made


async def test_event_and_report_say_what_the_server_said(
    objects: FakeStore, server: FakeRender, stage: Run, spans: Spans
) -> None:
    before = await scrape()
    job = make_job(dataset=objects.add("d", good(20)), base=MODEL)
    attempt, published = make_attempt(job, "validate")
    event = await stage(objects, server.url)(attempt)

    assert event.served is not None
    assert (event.served.rows, event.served.turns, event.served.differences) == (20, 20, 0)
    assert (event.served.server, event.served.not_asked) == (VERSION, None)
    assert event.served.template and event.served.probe
    report = json.loads(objects.held[event.report.key].data)
    assert report["served"]["turns"] == 20 and report["served"]["first"] is None
    assert published[-1].message == str(event.served)
    assert "validate.compare" in [span.name for span in spans.all]
    grown = (await scrape()).since(before)
    assert grown("tunestream_validation_compared_turns_total", result="same") == 20


async def test_a_difference_ends_the_job_with_its_line_and_keeps_the_report(
    objects: FakeStore, base: Path, stage: Run
) -> None:
    other = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant:\n")
    attempt, _ = make_attempt(make_job(dataset=objects.add("d", good(20)), base=MODEL), "validate")
    with FakeRender(base, MODEL, other).running() as server, pytest.raises(InputError) as caught:
        await stage(objects, server.url)(attempt)
    assert (caught.value.code, caught.value.param) == ("not_as_served", "training_file")
    assert "Line 1, messages[2]" in caught.value.message
    key = f"{attempt.prefix}report.json"
    report = json.loads(objects.held[key].data)
    assert report["ok"] is False and report["served"]["first"]["line"] == 1
    assert set(objects.held) == {"d", key, f"{attempt.prefix}report.html"}


async def test_without_a_server_event_and_history_say_so(objects: FakeStore, stage: Run) -> None:
    attempt, published = make_attempt(make_job(dataset=objects.add("d", good(20)), base=MODEL), "validate")
    event = await stage(objects, None)(attempt)
    assert event.served is not None and event.served.turns == 0
    assert event.served.not_asked == "no render server is configured (TUNESTREAM_RENDER__URL)"
    assert published[-1].message == f"not compared with the server: {event.served.not_asked}"
    assert event.served.probe is not None, "inference can still compare with the live server"
