"""A trial of a sweep is not evaluated; a retry of it from here is."""

from __future__ import annotations

import json
from typing import Any

from services.evaluator.work import EvaluateWork
from shared.events import EvalCompleted, Job, Origin, Retry, StageName
from shared.settings import InferenceSettings, Settings
from shared.stages.adoption import retry_of
from tests.support.data.jobs import make_attempt, make_job, make_training
from tests.support.fakes.servers import unused_port
from tests.support.fakes.store import FakeStore

SWEEP = "sweep-aaaa"


def trial() -> Job:
    return make_job(
        origin=Origin(kind="api", sweep=SWEEP), base="base", model="ft:base:org::1", dataset=_dataset(), alias="support"
    )


def _dataset() -> dict[str, Any]:
    return {"bucket": "b", "key": "k.jsonl", "etag": "e", "size": 1, "sha256": "0" * 64}


def retried(job: Job, stage: StageName) -> Job:
    return retry_of(job, Retry(parent_job=job.job_id, from_stage=stage, rerun=1, at=1.0, traceparent=""), "")


async def test_nothing_is_asked_for_a_trial_and_its_report_says_how_to_evaluate_it() -> None:
    objects = FakeStore()
    training = make_training(valid_loss=0.42).model_dump(mode="json", exclude_none=True)
    attempt, _ = make_attempt(trial(), "evaluator", request=training)
    # there is no endpoint at this address: nobody is asked
    settings = Settings(inference=InferenceSettings(url=f"http://127.0.0.1:{unused_port()}"))
    event = await EvaluateWork(objects, settings)(attempt)
    assert isinstance(event, EvalCompleted)
    assert not event.passed and event.examples == 0
    assert event.scores == {"tuned": {"valid_loss": 0.42}}
    assert "--from evaluator" in event.reasons[0]
    assert json.loads(await objects.read(event.report))["sweep"] == SWEEP
    page = (await objects.read(event.html)).decode()
    assert "Trained, not evaluated" in page and "0.420" in page


def test_a_retry_from_the_training_stays_a_trial_and_one_from_a_later_stage_does_not() -> None:
    assert trial().is_trial
    assert retried(trial(), "trainer").is_trial
    assert not retried(trial(), "evaluator").is_trial
    assert not make_job().is_trial


def test_older_services_can_read_the_origin_of_any_other_job() -> None:
    assert "sweep" not in make_job().model_dump_json()
    assert json.loads(trial().model_dump_json())["origin"]["sweep"] == SWEEP
