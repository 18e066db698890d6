"""A pause and a resume are shown, from the ledger and from events, whatever their order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api.domain.messages import messages
from services.api.domain.projection import TAKE_OVER_SECONDS, Claimed, Fact, Occurred, Wished, project
from services.api.domain.state import JobState
from tests.support.data.job_history import T0
from tests.unit.api.domain.test_waiting import HISTORY, after, claim, event, shown, waiting_claim


def paused(number: int, at: float) -> Wished:
    return Wished(HISTORY.job_id, "pause", number, at)


def resumed(number: int, at: float) -> Wished:
    return Wished(HISTORY.job_id, "resume", number, at)


def paused_claim(attempt: int, at: float, expires: float) -> Claimed:
    return claim(attempt, at, expires=expires, given_back=True, paused=True)


PAUSED: list[Fact] = [
    event("started", 1, T0 + 3),
    claim(1, T0 + 4, expires=T0 + 19),
    event("running", 1, T0 + 30),
    paused(1, T0 + 40),
    paused_claim(1, T0 + 44, expires=T0 + 43),
]
RESUMED: list[Fact] = [*PAUSED, resumed(1, T0 + 100)]
AGAIN: list[Fact] = [*RESUMED, claim(2, T0 + 102, expires=T0 + 116), event("started", 2, T0 + 102)]
TWICE: list[Fact] = [
    *AGAIN,
    waiting_claim(2, expires=T0 + 110),
    paused(2, T0 + 120),
    resumed(2, T0 + 130),
    claim(3, T0 + 131, expires=T0 + 145),
    paused_claim(3, T0 + 160, expires=T0 + 159),
    paused(3, T0 + 155),
]
STORIES = [(PAUSED, "paused"), (RESUMED, "queued"), (AGAIN, "running"), (TWICE, "paused")]


@pytest.mark.parametrize(("facts", "status"), STORIES)
def test_the_status_follows_what_the_user_wants_and_who_works(facts: list[Fact], status: str) -> None:
    assert shown(*facts)["status"] == status


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(STORIES).flatmap(lambda story: st.tuples(st.just(story), st.permutations(story[0] * 2))))
def test_any_order_and_any_repetition_end_in_the_same_state(drawn: tuple[tuple[list[Fact], str], list[Fact]]) -> None:
    (facts, status), shuffled = drawn
    assert after(*shuffled) == after(*facts)
    assert after(*shuffled).status == status
    stored = after(*shuffled).model_dump_json(exclude_defaults=True)
    assert JobState.model_validate_json(stored) == after(*facts)


@settings(max_examples=100, deadline=None)
@given(st.permutations(TWICE), st.permutations(TWICE), st.integers(0, len(TWICE)))
def test_a_later_wish_is_never_taken_back(order: list[Fact], late: list[Fact], cut: int) -> None:
    state = after(*TWICE)
    for fact in [*order[:cut], *late]:
        state = project(state, fact)
        assert state.status == "paused"


def test_a_paused_job_waits_for_nobody_however_long() -> None:
    long_ago = paused_claim(1, T0 + 50 + 10 * TAKE_OVER_SECONDS, expires=T0 + 43)
    job = shown(*PAUSED, long_ago)
    stage = job["stages"]["trainer"]
    assert (job["status"], job["waiting_for"], job["finished_at"]) == ("paused", None, None)
    assert (stage["state"], stage["waiting"], stage["eta_seconds"]) == ("waiting", None, None)


@pytest.mark.parametrize(
    ("news", "status"),
    [
        (claim(2, T0 + 102, expires=T0 + 116), "running"),
        (event("started", 2, T0 + 102), "running"),
        (waiting_claim(2, expires=T0 + 103), "running"),
        (claim(2, T0 + 102, expires=T0 + 103, given_back=True), "running"),
        (Occurred(HISTORY.trained, "ftevent-t", T0 + 102, committed=True, attempt=2), "running"),
        (event("running", 1, T0 + 101), "queued"),  # the last words of the attempt that was paused
        (paused_claim(1, T0 + 105, expires=T0 + 104), "queued"),  # it ended after the resume
        (paused(2, T0 + 110), "paused"),
        (Occurred(HISTORY.failed(), "ftevent-f", T0 + 102, committed=True, attempt=2), "failed"),
        (Occurred(HISTORY.failed(code="cancelled"), "ftevent-f", T0 + 102, committed=True, attempt=2), "cancelled"),
    ],
)
def test_a_resumed_job_is_queued_until_a_stage_works_on_it(news: Fact, status: str) -> None:
    assert shown(*RESUMED, news)["status"] == status


def test_a_job_that_is_paused_again_at_once_never_ran() -> None:
    assert shown(*RESUMED, paused(2, T0 + 101), resumed(2, T0 + 102))["status"] == "queued"


def test_the_end_counts_more_than_a_pause() -> None:
    for ending, status in ((HISTORY.failed(), "failed"), (HISTORY.failed(code="cancelled"), "cancelled")):
        ended = Occurred(ending, "ftevent-f", T0 + 50, committed=True, attempt=1)
        assert shown(*PAUSED, ended)["status"] == shown(ended, *PAUSED)["status"] == status


def test_the_history_tells_each_pause_and_each_resume_once() -> None:
    facts = [paused(1, T0 + 1), resumed(1, T0 + 2), paused(2, T0 + 3), paused(1, T0 + 1), resumed(1, T0 + 2)]
    told: dict[str, Any] = {message.id: message for fact in facts for message in messages(fact)}
    assert [(message.message, message.at, message.level) for message in told.values()] == [
        ("Job paused", T0 + 1, "info"),
        ("Job resumed", T0 + 2, "info"),
        ("Job paused", T0 + 3, "info"),
    ]
