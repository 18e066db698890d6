"""What `tunestream watch` and `tunestream jobs` say while something is away."""

from __future__ import annotations

import functools
import time
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli.client import Client, Json, Unreachable
from cli.commands import jobs as job_commands
from cli.jobs.follow import OUTAGE_SECONDS, Snapshot, follow
from cli.jobs.result import result_lines
from cli.jobs.view import RESUMED_SECONDS, LiveView, PlainView
from cli.main import app
from services.api.domain.notes import STORE_AWAY, notes
from services.api.domain.projection import Manifest, Occurred, project
from services.api.domain.state import JobState, Unreadable
from services.api.resources.jobs.domain import job_view, unreadable_view
from tests.support.data.job_history import T0, JobHistory
from tests.unit.cli.jobs.test_watch import ID, Clock, FakeApi, client_of, done, job, message, snapshots, text_of

HUB = "the hub does not answer"
KAFKA = {"code": "bus_away", "message": "Kafka does not answer: slower, working from the ledger", "seconds": 40.0}
STORE = {"code": "store_away", "message": "The object store does not answer", "seconds": 200.0}


def waiting(seconds: float | None = 40.0, next_try: float | None = 12.3, what: str = HUB) -> Json:
    """A job whose trainer waits."""
    details = {"cause": "transient", "since": 60.0, "seconds": seconds, "next_try_seconds": next_try}
    stage = {"state": "waiting", "started_at": 50.0, "waiting_for": what, "waiting": details, "message": what}
    return job("running", trainer=stage) | {"waiting_for": f"trainer: {what}", "as_of": 100.0, "notes": []}


def running(**more: Any) -> Json:
    return job("running", trainer={"state": "running", "started_at": 50.0, "waiting_for": None}) | more


def test_lines_say_what_a_stage_waits_for_and_when_it_goes_on() -> None:
    clock = Clock()
    lines = PlainView(clock)
    lines(Snapshot(running(), []))
    assert lines(Snapshot(waiting(), [])) == [f"trainer waits: {HUB} (since 40 s, next try in 12 s)"]
    assert lines(Snapshot(waiting(seconds=41.0, next_try=11.3), [])) == [], "a line per second would be noise"
    assert lines(Snapshot(waiting(what="the hub refuses the key"), [])) == [
        "trainer waits: the hub refuses the key (since 40 s, next try in 12 s)"
    ]
    assert lines(Snapshot(running(), [])) == []
    clock.sleep(RESUMED_SECONDS)
    assert lines(Snapshot(running(), [])) == ["trainer: running"]
    assert lines(Snapshot(waiting(), [])) == [f"trainer waits: {HUB} (since 40 s, next try in 12 s)"]
    completed = {"state": "completed", "started_at": 50.0, "finished_at": 60.0}
    assert lines(Snapshot(job(trainer=completed), [])) == ["trainer: completed after 10.0 s"]


def test_tries_in_vain_are_not_told_one_by_one() -> None:
    clock = Clock()
    lines = PlainView(clock)
    lines(Snapshot(waiting(), []))
    for _ in range(100):
        assert lines(Snapshot(running(), [])) == []
        clock.sleep(1.0)
        assert lines(Snapshot(waiting(next_try=60.0), [])) == []
        clock.sleep(60.0)


def test_what_the_api_answers_is_what_the_command_shows() -> None:
    """The two sides are written apart."""
    history = JobHistory()
    what = history.progress(
        "trainer", "waiting", attempt=2, message=HUB, data={"cause": "transient", "seconds": 30.0, "since": T0 + 10}
    )
    facts = [Manifest(history.job), Occurred(what, "ftevent-w", T0 + 20)]
    state = functools.reduce(project, facts, JobState(job_id=history.job_id))
    away = [note.view() for note in notes(store_away=200.0, store_refuses=False, bus_away=None)]
    shown = job_view(state, lambda path: path, now=T0 + 50, notes=away)
    lines = PlainView(lambda: 0.0)(Snapshot(shown, []))
    assert lines[0] == f"note: {STORE_AWAY} (for 3 min 20 s)"
    assert f"trainer waits: {HUB} (since 40 s, is tried now)" in lines


@pytest.mark.parametrize(
    ("seconds", "next_try", "words"),
    [
        (None, None, f"trainer waits: {HUB}"),
        (3900.0, None, f"trainer waits: {HUB} (since 1 h 05 min)"),
        (None, 0.0, f"trainer waits: {HUB} (is tried now)"),
        (65.0, 0.2, f"trainer waits: {HUB} (since 1 min 05 s, is tried now)"),
    ],
)
def test_what_is_not_known_of_a_wait_is_left_out(seconds: float | None, next_try: float | None, words: str) -> None:
    assert words in PlainView(lambda: 0.0)(Snapshot(waiting(seconds, next_try), []))


def test_the_live_view_says_it_beside_the_stage() -> None:
    live = LiveView(ID, lambda: 0.0)
    live.update(Snapshot(waiting(), []))
    assert f"waits: {HUB} (since 40 s, next try in 12 s)" in text_of(live.render())


def test_what_is_away_is_said_once_and_when_it_is_back() -> None:
    lines = PlainView(lambda: 0.0)
    assert f"note: {KAFKA['message']} (for 40 s)" in lines(Snapshot(running(notes=[KAFKA]), []))
    assert lines(Snapshot(running(notes=[KAFKA | {"seconds": 41.0}]), [])) == []
    assert lines(Snapshot(running(notes=[STORE, KAFKA]), [])) == [f"note: {STORE['message']} (for 3 min 20 s)"]
    assert lines(Snapshot(running(notes=[]), [])) == [f"over: {KAFKA['message']}", f"over: {STORE['message']}"]
    live = LiveView(ID, lambda: 0.0)
    live.update(Snapshot(running(notes=[KAFKA]), []))
    assert f"{KAFKA['message']} (for 40 s)" in text_of(live.render())


def test_a_clock_of_this_machine_that_is_off_does_not_matter() -> None:
    clock = Clock()
    clock.now = 100.0 + 3600
    live = LiveView(ID, clock)
    live.update(Snapshot(running(as_of=58.2), []))
    assert "8.2 s" in text_of(live.render())
    clock.sleep(2.0)
    assert "10.2 s" in text_of(live.render())


# --- following ------------------------------------------------------------------------------------------------------


class Answers(FakeApi):
    """An api that answers each request with the next of `statuses` while there are some."""

    statuses: list[int]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.statuses:
            return httpx.Response(self.statuses.pop(0), json={"error": {"message": "The object store is away"}})
        return super().__call__(request)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_api_that_cannot_look_yet_is_waited_for_from_the_start(status: int) -> None:
    api = Answers([job(), done()], [message(1, "one")])
    api.statuses = [status] * 30
    found = snapshots(api)
    assert "The object store is away" in found[0].trouble
    assert found[-1].final
    assert [event["id"] for snapshot in found for event in snapshot.events] == ["e1"]


def test_a_bug_of_the_api_is_an_error_at_once() -> None:
    api = Answers([done()], [])
    api.statuses = [500]
    with pytest.raises(Unreachable):
        snapshots(api)


def test_watching_outlives_two_minutes_without_the_api_and_says_so() -> None:
    api = FakeApi([job(), done()], [])
    clock = Clock()
    lines = PlainView(lambda: 0.0)
    stream = follow(client_of(api), ID, clock=clock, sleep=clock.sleep)
    lines(next(stream))
    api.down = 260  # at two tries a second
    told = [line for snapshot in stream for line in lines(snapshot)]
    assert clock.now > 120 and OUTAGE_SECONDS >= 600
    assert told[0].startswith("api: nothing answers at http://api") and told[0].endswith("still trying")
    assert "api: answers again" in told


def test_a_history_that_was_made_anew_is_told_on_without_repetition() -> None:
    """The database was deleted, and Kafka has dropped the event after which the watch wanted to continue."""
    api = FakeApi([job()], [message(1, "one"), message(2, "step")])
    clock = Clock()
    stream = follow(client_of(api), ID, clock=clock, sleep=clock.sleep)
    assert [event["id"] for event in next(stream).events] == ["e1", "e2"]
    api.events = [message(1, "one"), message(3, "three")]
    assert [event["id"] for event in next(stream).events] == ["e3"]
    api.events = [*api.events, message(4, "four")]
    api.jobs = [done()]
    assert [event["id"] for event in next(stream).events] == ["e4"]
    assert list(stream) == []


def test_a_result_that_the_api_cannot_show_is_not_told_as_another_one() -> None:
    view = unreadable_view(Unreadable(ID, 100.0, "succeeded"))
    assert Snapshot(view, []).final
    assert result_lines(view) == ["succeeded; the api cannot show its result, its log says why"]
    assert PlainView(lambda: 0.0)(Snapshot(view, []))


# --- the list -------------------------------------------------------------------------------------------------------


def test_the_list_says_what_a_job_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_commands, "resolve", lambda folder: None)
    listed = [waiting() | {"notes": [KAFKA], "created_at": time.time() - 7200, "as_of": time.time()}, done()]
    monkeypatch.setattr(Client, "__init__", lambda self, target: None)
    monkeypatch.setattr(Client, "__exit__", lambda *args: None)
    monkeypatch.setattr(Client, "jobs", lambda self, limit: listed)
    result = CliRunner().invoke(app, ["jobs"])
    assert result.exit_code == 0
    assert f"trainer: {HUB}" in result.stdout
    assert "2 h 00 min" in result.stdout
    assert f"{KAFKA['message']} (for 40 s)" in result.stderr


def test_a_list_in_which_nothing_waits_has_no_column_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_commands, "resolve", lambda folder: None)
    monkeypatch.setattr(Client, "__init__", lambda self, target: None)
    monkeypatch.setattr(Client, "__exit__", lambda *args: None)
    monkeypatch.setattr(Client, "jobs", lambda self, limit: [done()])
    result = CliRunner().invoke(app, ["jobs"])
    assert "waits for" not in result.stdout
