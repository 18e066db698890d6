"""kill -9 of any process at any stage: after the restart the job succeeds, once."""

from __future__ import annotations

import pytest

from shared.stages.stage import STAGES
from tests.e2e.conftest import StackUnderTest
from tests.support.user import QUICK, salted_rows, support_rows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.mark.proof  # chaos kills each of them, too
def test_everything_killed_in_the_middle_of_a_job(stack: StackUnderTest) -> None:
    """Each service is killed in its stage; broker and api are killed in the middle of the training."""
    stack.drop("killed", salted_rows(60, "stages"), QUICK.format(suffix="killed"))
    stack.kill("ingest")
    for stage in STAGES:
        stack.running("killed.jsonl", stage)
        stack.kill(stage)
        if stage == "trainer":
            stack.kill("tansu")
            stack.kill("api")
    stack.ended_well_and_once("killed.jsonl")


def test_a_training_killed_resumes_from_its_checkpoint(stack: StackUnderTest) -> None:
    """The next attempt continues from the newest complete checkpoint, not from the first step."""
    sidecar = QUICK.format(suffix="resumed").replace("n_epochs: 1", "n_epochs: 2")
    stack.drop("resumed", support_rows(160), sidecar)
    job = stack.running("resumed.jsonl", "trainer")
    prefix = f"jobs/{job['id']}/trainer/attempt-1/resume/"
    stack.wait(
        "resumed.jsonl", lambda job: any(key.endswith("manifest.json") for key in stack.ledger(prefix)), "a checkpoint"
    )
    stack.kill("trainer")
    job = stack.ended_well_and_once("resumed.jsonl")
    events = stack.get(f"/jobs/{job['id']}/events?limit=1000&order=asc")["data"]
    steps = [event["data"]["step"] for event in events if event["type"] == "metrics" and "train_loss" in event["data"]]
    assert steps.count(1) == 1, "the second attempt trained the first step again"


def test_a_cancelled_training_ends_as_cancelled_and_stops(stack: StackUnderTest) -> None:
    sidecar = QUICK.format(suffix="cancelled").replace("n_epochs: 1", "n_epochs: 50")
    stack.drop("cancelled", support_rows(240), sidecar)
    job = stack.running("cancelled.jsonl", "trainer")
    stack.tunestream("cancel", job["id"])
    job = stack.ended("cancelled.jsonl", 60)
    assert job["status"] == "cancelled"
    assert not stack.ledger(f"jobs/{job['id']}/evaluator/")


def test_a_projection_that_is_deleted_is_rebuilt(stack: StackUnderTest) -> None:
    before = {job["id"]: job["status"] for job in stack.get("/jobs?limit=100")["data"]}
    (stack.state / "api.sqlite3").unlink()
    stack.kill("api")
    # until the api is ready, it says that it is still reading the ledger
    stack.wait(
        "cancelled.jsonl",
        lambda job: job["status"] == "cancelled" and stack.health("api") == 200,
        "the projection is rebuilt",
    )
    after = {job["id"]: job["status"] for job in stack.get("/jobs?limit=100")["data"]}
    assert after == before
