"""Kafka, the store and vLLM are away, one after the other, while jobs are in the line: each job ends well, once, with
one training, and `tunestream watch` says what is away. Without Kafka a dropped file becomes a served model.

A part that is away is stopped by SIGSTOP: it takes connections and answers nothing. TUNESTREAM_OUTAGE_SECONDS is for
how long each is away."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaConsumer

from shared.events import StageResult
from tests.e2e.conftest import StackUnderTest
from tests.support.user import QUICK, salted_rows

OUTAGE = float(os.environ.get("TUNESTREAM_OUTAGE_SECONDS", "20"))
JOBS = max(3, int(OUTAGE // 12))
"""So many that each part that goes away finds a job to hold up: the trainings go on while Kafka is away."""
IN_TIME = 420.0
"""Seconds within which a job ends after the last outage."""
SAID_WITHIN = 60.0
"""Seconds of an outage within which watch says what is away. Those who work bear it for a while first."""
TRAINING = "n_epochs: 4"
EVALUATION = ("max_examples: 4, few_shot: 1, max_tokens: 16", "max_examples: 30, few_shot: 1, max_tokens: 48")
"""What an outage has to find under way: long enough."""

PROMOTED = "gate: {promote: always}\n"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200 + 8 * OUTAGE)]


@pytest.mark.proof
def test_each_job_ends_well_once_and_says_what_it_waits_for(stack: StackUnderTest) -> None:
    names = [f"outage-{number}" for number in range(JOBS)]
    for name in names:
        drop(stack, name, PROMOTED)
    jobs = {name: stack.running(f"{name}.jsonl", "validate")["id"] for name in names}

    stack.running("outage-0.jsonl", "trainer")
    with stack.watching(jobs["outage-0"]) as said, stack.away("tansu"):
        drop(stack, "dropped-without-kafka")
        lasts(OUTAGE, lambda: "Kafka" in said(), "watch says that Kafka is away")

    training = working(stack, jobs, "trainer")
    with stack.watching(jobs[training]) as said, stack.away("weed"):
        lasts(OUTAGE, lambda: "object store" in said(), "watch says that the store is away")

    for name in (*names, "dropped-without-kafka"):
        ends_well_after_one_training(stack, name)

    drop(stack, "asked-without-vllm", PROMOTED)  # a long evaluation and, after it, a deployment: both need vLLM
    asked = stack.running("asked-without-vllm.jsonl", "validate")["id"]
    with stack.watching(asked) as said:
        stack.running("asked-without-vllm.jsonl", "evaluator")
        with stack.away("vllm"):
            lasts(OUTAGE, lambda: "evaluator waits:" in said() or "inference waits:" in said(), "watch says who waits")
    ends_well_after_one_training(stack, "asked-without-vllm")


@pytest.mark.proof
def test_without_kafka_a_dropped_file_becomes_a_served_model_and_its_events_come_later(stack: StackUnderTest) -> None:
    with stack.away("tansu"):
        stack.drop("no-kafka", salted_rows(40, "no-kafka"), QUICK.format(suffix="no-kafka") + PROMOTED)
        job = ends_well_after_one_training(stack, "no-kafka")
        assert job["deployment"]["alias"] == "no-kafka"
        answer = stack.openai.chat.completions.create(
            model="no-kafka", messages=[{"role": "user", "content": "Hello"}], max_tokens=8
        )
        assert answer.model == job["fine_tuned_model"]
        assert not stack.ledger(f"jobs/{job['id']}/inference/published.json"), "nothing could be published"
    topics = ["dataset.uploaded", "dataset.validated", "training.completed", "eval.completed", "model.deployed"]
    asyncio.run(arrive(stack.env["TUNESTREAM_KAFKA"], topics, job["id"]))


def drop(stack: StackUnderTest, name: str, more: str = "") -> None:
    sidecar = QUICK.format(suffix=name).replace("n_epochs: 1", TRAINING).replace(*EVALUATION)
    stack.drop(name, salted_rows(60, name), sidecar + more)


def lasts(seconds: float, said: Callable[[], bool], what: str) -> None:
    """Let `seconds` pass, and more until something is said, which has to be soon."""
    began, met = time.monotonic(), False
    while not met or time.monotonic() - began < seconds:
        met = met or said()
        assert met or time.monotonic() - began < SAID_WITHIN, f"not within {SAID_WITHIN} s: {what}"
        time.sleep(0.2)


def working(stack: StackUnderTest, jobs: dict[str, str], stage: str) -> str:
    """Wait until the stage works on one of the jobs. Returns its name."""
    deadline = time.monotonic() + IN_TIME
    while time.monotonic() < deadline:
        for name, job_id in jobs.items():
            if stack.get(f"/jobs/{job_id}")["stages"][stage]["state"] == "running":
                return name
        time.sleep(0.1)
    raise AssertionError(f"not within {IN_TIME} s: {stage} works on one of {sorted(jobs)}")


def ends_well_after_one_training(stack: StackUnderTest, name: str) -> dict:
    job = stack.ended_well_and_once(f"{name}.jsonl", IN_TIME)
    keys = stack.ledger(f"jobs/{job['id']}/trainer/")
    assert {key.split("/")[3] for key in keys if "/attempt-" in key} == {"attempt-1"}, "the training was not repeated"
    found = stack.s3.get_object(Bucket="tunestream", Key=f"jobs/{job['id']}/trainer/result.json")
    assert StageResult.model_validate_json(found["Body"].read()).attempt == 1
    return job


async def arrive(bootstrap: str, topics: list[str], job_id: str, seconds: float = 120) -> None:
    """Wait until an event of the job is on each topic."""
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    missing = set(topics)
    try:
        async with asyncio.timeout(seconds):
            while missing:
                record = await consumer.getone()
                if record.key == job_id.encode():
                    missing.discard(record.topic)
    except TimeoutError:
        raise AssertionError(f"no event of {job_id} within {seconds} s on {sorted(missing)}") from None
    finally:
        await consumer.stop()
