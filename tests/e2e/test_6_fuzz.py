"""Hundreds of hostile events, drops and requests stop nothing: another user's jobs are deployed in time, no process
ends, no answer is a bug's, and what became of each item can be found.

TUNESTREAM_FUZZ_SEED and TUNESTREAM_FUZZ_ITEMS choose other and more items; `make prove-fuzz` sends two thousand."""

from __future__ import annotations

import os
import time

import pytest

from services.api.domain.state import FINAL
from tests.e2e.conftest import StackUnderTest
from tests.support.fuzz.assault import Assault, is_hostile, items
from tests.support.fuzz.requests import Target
from tests.support.user import QUICK, salted_rows

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.timeout(1500)]

SEED = os.environ.get("TUNESTREAM_FUZZ_SEED", "1")
ITEMS = int(os.environ.get("TUNESTREAM_FUZZ_ITEMS", "400"))
IN_TIME = 240.0
"""Seconds within which a good job is deployed, whatever is in the line before it."""


def test_hostile_items_stop_nothing_and_none_is_lost(stack: StackUnderTest) -> None:
    print(f"\nTUNESTREAM_FUZZ_SEED={SEED} TUNESTREAM_FUZZ_ITEMS={ITEMS}")  # noqa: T201  # so that it can be repeated
    target = Target(
        gateway=stack.env["OPENAI_BASE_URL"].removesuffix("/v1"),
        api=stack.env["TUNESTREAM_API_URL"],
        key=stack.env["OPENAI_API_KEY"],
        base=stack.env["TUNESTREAM_BASE"],
    )
    hostile, stranger = items(SEED, ITEMS, target), Assault(stack)
    before = stack.starts()

    stranger.send(hostile[: ITEMS // 2])
    good_job(stack, "in-the-middle")
    stranger.send(hostile[ITEMS // 2 :])
    good_job(stack, "after")
    deployed(stack, "in-the-middle")
    deployed(stack, "after")
    everything_ended(stack, stranger)

    lost = stranger.lost()
    print("\n".join(f"{count:5} {fate}" for fate, count in sorted(stranger.fates.items())))  # noqa: T201
    assert len(stranger.places) > 0.4 * ITEMS and len(stranger.dropped()) > 0.25 * ITEMS, "most of them arrived"
    assert not lost, f"{len(lost)} items are lost: " + "\n".join(lost[:20])
    assert not stranger.broken, f"{len(stranger.broken)} answers: " + "\n".join(stranger.broken[:20])
    for job in filter(is_hostile, stack.jobs()):
        assert job["status"] == "failed", job
        assert job["error"]["code"] != "internal_error", job
        assert job["error"]["code"] and len(job["error"]["message"]) > 10, job
    assert stack.starts() == before, "no process was started again"
    assert all(stack.health(name) == 200 for name in stack.services()), "every service is ready"


def good_job(stack: StackUnderTest, name: str) -> None:
    sidecar = QUICK.format(suffix=f"fuzz-{name}") + "gate: {promote: always}\n"
    stack.drop(f"good-{name}", salted_rows(24, name), sidecar)


def deployed(stack: StackUnderTest, name: str) -> None:
    job = stack.ended_well_and_once(f"good-{name}.jsonl", IN_TIME)
    assert job["deployment"]["alias"] == f"fuzz-{name}"


def everything_ended(stack: StackUnderTest, stranger: Assault) -> None:
    """Wait until all events were consumed, and every dataset has a job that has ended, or is in quarantine."""
    deadline = time.monotonic() + IN_TIME
    while True:
        ended = {job["dataset"]["key"] for job in stack.jobs() if job["status"] in FINAL}
        held = {place.removeprefix("s3://datasets/") for place in stranger.quarantined()}
        open_ = set(stranger.dropped()) - ended - held
        behind = {name: lag for name in stack.services() if (lag := stack.lag(name))}
        if not open_ and not behind:
            return
        assert time.monotonic() < deadline, f"{len(open_)} datasets without an end: {sorted(open_)[:10]}; lag: {behind}"
        time.sleep(1)
