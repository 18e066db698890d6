"""What a stage waits for is shown, from its events and from its claim, whatever their order and whatever the clocks."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api.domain.messages import messages
from services.api.domain.projection import TAKE_OVER_SECONDS, Claimed, Fact, Manifest, Occurred, project
from services.api.domain.state import JobState
from services.api.resources.jobs.domain import job_view
from shared.events import Claim
from tests.support.data.job_history import T0, JobHistory

HISTORY = JobHistory()
HUB = "the hub does not answer"
HOUR = 3600.0
VALIDATED = [
    Manifest(HISTORY.job),
    Occurred(HISTORY.validated, "ftevent-v", T0 + 2, committed=True, attempt=1),
]


def event(state: str, attempt: int | None, at: float, message: str = "", **data: Any) -> Occurred:
    told = HISTORY.progress("trainer", state, attempt=attempt, message=message, data=data)
    return Occurred(told, f"ftevent-{state}-{attempt}-{at}", at)


def waiting_event(attempt: int, at: float, *, since: float = T0 + 10) -> Occurred:
    return event("waiting", attempt, at, HUB, cause="transient", seconds=16.0, since=since)


def claim(attempt: int, at: float = T0 + 20, **fields: Any) -> Claimed:
    usual = {"owner": "trainer-1", "attempt": attempt, "expires": T0 + 25}
    return Claimed(HISTORY.job_id, "trainer", at, Claim.model_validate(usual | fields))


def waiting_claim(attempt: int, **fields: Any) -> Claimed:
    usual = {"given_back": True, "expires": T0 + 20, "waiting_for": HUB, "waiting_since": T0 + 10, "failures": 3}
    return claim(attempt, **(usual | {"not_before": T0 + 40} | fields))


def after(*facts: Fact) -> JobState:
    return functools.reduce(project, [*VALIDATED, *facts], JobState(job_id=HISTORY.job_id))


def shown(*facts: Fact, now: float = T0 + 28) -> dict[str, Any]:
    """The job, as the API shows it after these facts."""
    return job_view(after(*facts), lambda path: path, now=now)


def trainer(*facts: Fact, now: float = T0 + 28) -> dict[str, Any]:
    stage: dict[str, Any] = shown(*facts, now=now)["stages"]["trainer"]
    return stage


def said(facts: Iterable[Fact]) -> dict[str, str]:
    return {message.id: message.message for fact in facts for message in messages(fact)}


@pytest.mark.parametrize("fact", [waiting_event(3, T0 + 24), waiting_claim(3)], ids=["event", "claim"])
def test_a_waiting_job_says_what_for_since_when_and_until_when_and_has_not_failed(fact: Fact) -> None:
    job = shown(event("started", 1, T0 + 3), fact)
    stage = job["stages"]["trainer"]
    assert (job["status"], job["error"], job["finished_at"]) == ("running", None, None)
    assert job["waiting_for"] == f"trainer: {HUB}"
    assert (stage["state"], stage["waiting_for"]) == ("waiting", HUB)
    assert (stage["waiting"]["seconds"], stage["waiting"]["next_try_seconds"]) == (18.0, 12.0)
    assert stage["waiting"]["since"] == T0 + 10
    assert stage["eta_seconds"] is None


def test_the_event_adds_the_cause_that_the_claim_does_not_hold() -> None:
    assert trainer(waiting_claim(3))["waiting"]["cause"] is None
    assert trainer(waiting_claim(3), waiting_event(3, T0 + 24))["waiting"]["cause"] == "transient"
    assert "since" not in trainer(waiting_event(3, T0 + 24))["data"], "they are no figures of the training"


def test_a_validation_that_waits_is_not_failed_either() -> None:
    waiting = HISTORY.progress("validate", "waiting", attempt=1, message="the object store refuses a key")
    job = job_view(after_only(Occurred(waiting, "ftevent-1", T0 + 3)), lambda path: path, now=T0 + 4)
    assert (job["status"], job["waiting_for"]) == ("validating_files", "validate: the object store refuses a key")


def after_only(*facts: Fact) -> JobState:
    return functools.reduce(project, [Manifest(HISTORY.job), *facts], JobState(job_id=HISTORY.job_id))


@pytest.mark.parametrize(
    "on",
    [event("started", 4, T0 + 41), event("running", 4, T0 + 42), claim(4, T0 + 41, expires=T0 + 56)],
    ids=["started", "running", "claim"],
)
def test_it_goes_on_with_the_next_attempt(on: Fact) -> None:
    for waits in ([waiting_claim(3)], [waiting_event(3, T0 + 24)], [waiting_claim(3), waiting_event(3, T0 + 24)]):
        for order in ([*waits, on], [on, *waits]):
            job = shown(*order, now=T0 + 43)
            stage = job["stages"]["trainer"]
            assert (stage["state"], stage["waiting_for"], stage["waiting"]) == ("running", None, None)
            assert job["waiting_for"] is None


@pytest.mark.parametrize("skew", [-HOUR, -60.0, 0.0, 60.0, HOUR])
def test_clocks_that_differ_change_nothing(skew: float) -> None:
    """Attempt 3 ran on a machine whose clock is off; attempt 4 runs on one whose clock is right."""
    late = waiting_event(3, T0 + 24 + skew)
    assert trainer(late, event("started", 4, T0 + 41))["state"] == "running"
    assert trainer(event("started", 4, T0 + 41), late)["state"] == "running"
    assert trainer(event("started", 3, T0 + 12 + skew), waiting_claim(3))["state"] == "waiting"
    assert trainer(waiting_claim(3), event("running", 3, T0 + 12 + skew))["state"] == "waiting"
    figures = [
        Occurred(HISTORY.progress("trainer", step=step, attempt=attempt), f"ftevent-{step}", at)
        for step, attempt, at in ((40, 3, T0 + 20 + skew), (41, 4, T0 + 45))
    ]
    assert trainer(*figures)["step"] == trainer(*figures[::-1])["step"] == 41


def test_an_event_of_an_older_runner_yields_to_the_ledger() -> None:
    untold = event("retrying", None, T0 + HOUR)
    assert trainer(untold)["state"] == "retrying"
    assert trainer(untold, claim(2))["state"] == trainer(claim(2), untold)["state"] == "running"


def test_what_waits_within_an_attempt_goes_on_within_it() -> None:
    waits = event("waiting", 1, T0 + 5, "its turn of the GPU")
    assert trainer(claim(1), waits)["waiting_for"] == "its turn of the GPU"
    assert trainer(claim(1), waits, event("running", 1, T0 + 6))["state"] == "running"


def test_a_claim_in_the_ledger_stands_in_for_lost_events() -> None:
    held = claim(1, T0 + 4)
    assert (trainer(held)["state"], trainer(held)["started_at"]) == ("running", T0 + 4)
    assert trainer(held, claim(1, expires=0.0, not_before=T0 + 40, bugs=1))["state"] == "retrying"
    assert trainer(claim(1, given_back=True, not_before=T0 + 40, bugs=1))["state"] == "retrying"
    assert trainer(claim(1, given_back=True))["state"] == "running", "a restart: the next owner begins at once"


def test_a_stage_that_nobody_takes_over_says_so() -> None:
    dead = claim(1, T0 + 26 + TAKE_OVER_SECONDS, expires=T0 + 25)
    stage = trainer(claim(1), event("running", 1, T0 + 24), dead, now=T0 + 100)
    assert (stage["state"], stage["waiting_for"]) == ("waiting", "a free trainer service")
    assert stage["waiting"]["seconds"] == 75
    again = claim(1, T0 + 101, expires=T0 + 116)  # its owner was only suspended
    assert trainer(dead, again)["state"] == trainer(again, dead)["state"] == "running"


def test_a_renewal_is_no_news() -> None:
    first, renewed = claim(1).seen, claim(1, expires=T0 + 30).seen
    assert not renewed.is_news(first)
    assert waiting_claim(1).seen.is_news(renewed) and claim(2).seen.is_news(renewed)
    assert not renewed.is_news(waiting_claim(1).seen), "a late reader does not bring back what is over"


ALL: list[Fact] = [
    event("started", 1, T0 + 3),
    event("running", 1, T0 + 4 + HOUR, "tokenizing"),
    waiting_event(1, T0 + 10 + HOUR),
    claim(1, T0 + 4, expires=T0 + 9),
    claim(1, T0 + 5, expires=T0 + 14),
    waiting_claim(1, expires=T0 + 10, not_before=T0 + 12),
    event("started", 2, T0 + 12 - HOUR),
    waiting_event(2, T0 + 13 - HOUR),
    waiting_claim(2),
    event("started", 3, T0 + 41),
    claim(3, T0 + 42, expires=T0 + 56),
]


@settings(max_examples=150, deadline=None)
@given(st.permutations(ALL + ALL))
def test_any_order_and_any_repetition_end_in_the_same_state(shuffled: list[Fact]) -> None:
    assert after(*shuffled) == after(*ALL)
    assert trainer(*shuffled)["state"] == "running"


@settings(max_examples=150, deadline=None)
@given(st.permutations(ALL))
def test_what_is_shown_never_goes_back(order: list[Fact]) -> None:
    """Whatever comes late: once a later attempt is shown, no earlier one is shown again."""
    state, newest = after(), (0, False)
    for fact in order:
        state = project(state, fact)
        stage = state.stage("trainer")
        said = stage.latest["state"].attempt if "state" in stage.latest else 0
        seen = (stage.claim.attempt, stage.claim.given_back) if stage.claim else (0, False)
        assert max((said, False), seen) >= newest
        newest = max((said, False), seen)
        if newest == (3, False):
            assert state.shown("trainer") == "running"
        assert state.status == "running"


# --- the history --------------------------------------------------------------------------------------------------


def test_the_history_says_once_what_a_stage_waits_for_however_often_it_tries() -> None:
    facts = [waiting_event(1, T0 + 10), waiting_claim(1), waiting_event(2, T0 + 14), waiting_claim(2)]
    assert list(said(facts).values()).count(f"trainer waits: {HUB}") == 1
    again = waiting_event(9, T0 + 500, since=T0 + 400)  # it went on in between
    assert list(said([*facts, again]).values()).count(f"trainer waits: {HUB}") == 2
    [message] = messages(again)
    assert (message.level, message.data["stage"]) == ("warn", "trainer")


def test_a_claim_tells_that_a_stage_started_as_its_event_would() -> None:
    assert said([claim(1)]) == said([event("started", 1, T0 + 3)])


@pytest.mark.parametrize(
    "data",
    [
        {"since": -1e308, "seconds": {}, "cause": 7},
        {"since": "never", "seconds": "soon", "cause": None},
        {"since": True, "seconds": [1]},
        {},
    ],
)
def test_a_waiting_event_with_odd_figures_is_shown_without_them(data: dict[str, Any]) -> None:
    fact = event("waiting", 1, T0 + 5, **data)
    stage = trainer(fact)
    assert stage["waiting_for"] == "something that is away"
    assert stage["waiting"] == {"cause": None, "since": None, "seconds": None, "next_try_seconds": None}
    assert [message.message for message in messages(fact)] == ["trainer waits: something that is away"]
    kept = JobState.model_validate_json(after(fact).model_dump_json(exclude_defaults=True))
    assert kept == after(fact)
