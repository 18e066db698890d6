"""Parts are killed, cut off and emptied in the middle of jobs: every job succeeds, once."""

from __future__ import annotations

import time

import pytest

from shared.stages.stage import STAGES
from tests.full.conftest import FullStack
from tests.support.trace import Trace
from tests.support.user import QUICK, salted_rows, support_rows

pytestmark = pytest.mark.timeout(900, func_only=True)

AWAY = 12
"""For how many seconds Kafka is away while each stage works: longer than the 10 after which a consumer is given up. Its
start takes some more."""
PART = 5 * 2**20


def test_every_service_killed_in_the_middle_of_its_stage(stack: FullStack) -> None:
    # the training must outlast the wait for its first span and the kill, also on a busy machine
    longer = QUICK.format(suffix="killed").replace("n_epochs: 1", "n_epochs: 6")
    stack.drop("killed", salted_rows(60, "stages"), longer)
    stack.kill("ingest")
    stack.start("ingest")
    for stage in STAGES:
        job = stack.running("killed.jsonl", stage)
        if stage == "trainer":
            # A claim is visible at once, but spans are exported every 200 ms. An earlier kill would lose the first one.
            Trace.until(stack, job["trace_id"], lambda trace: trace.attempts("trainer") == 1)
        stack.kill(stage)
        stack.start(stage)
    job = stack.ended_well_and_once("killed.jsonl")
    trace = Trace.until(stack, job["trace_id"], lambda trace: "inference" in trace.names("inference"))
    assert trace.attempts("trainer") == 2, "the second attempt is in the same trace"


@pytest.mark.proof
def test_kafka_away_while_stages_work(stack: FullStack) -> None:
    """The evaluation between these two lasts longer than the start of Kafka. For the others: `make chaos-full`."""
    stack.drop("away", salted_rows(40, "away"), QUICK.format(suffix="away"))
    for stage in ("trainer", "inference"):
        stack.running("away.jsonl", stage)
        stack.kill("kafka")
        time.sleep(AWAY)  # this is the outage itself, not a wait for something
        stack.start("kafka")
    stack.ended_well_and_once("away.jsonl")


@pytest.mark.proof
def test_kafkas_disk_lost_between_two_stages_and_the_store_restarted_during_an_upload(stack: FullStack) -> None:
    body = salted_rows(40, "disk")
    filler = b" " * 200 + b"\n"  # blank lines are no rows; S3 wants parts of 5 MB
    body += filler * (PART // len(filler) + 1)
    s3 = stack.s3
    s3.put_object(Bucket="datasets", Key="lost.job.yaml", Body=QUICK.format(suffix="lost").encode())
    upload = s3.create_multipart_upload(Bucket="datasets", Key="lost.jsonl")["UploadId"]
    parts = []
    for number, piece in enumerate((body[:PART], body[PART:]), 1):
        tag = s3.upload_part(Bucket="datasets", Key="lost.jsonl", UploadId=upload, PartNumber=number, Body=piece)
        parts.append({"PartNumber": number, "ETag": tag["ETag"]})
        if number == 1:
            stack.kill("minio")
            stack.compose("up", "--detach", "--wait", "minio")
    stack.compose("stop", "trainer")
    s3.complete_multipart_upload(Bucket="datasets", Key="lost.jsonl", UploadId=upload, MultipartUpload={"Parts": parts})
    stack.wait("lost.jsonl", lambda job: job["stages"]["validate"]["state"] == "completed", "validated")
    stack.compose("rm", "--stop", "--force", "kafka")
    stack.remove_volume("kafka")
    # No --wait: Compose also starts vLLM again, which may take longer than what needs it is allowed to be unhealthy.
    stack.compose("up", "--detach", timeout=600)
    stack.ended_well_and_once("lost.jsonl")


@pytest.mark.proof
def test_a_stopped_trainer_uploads_its_checkpoint_and_a_killed_vllm_is_waited_for(stack: FullStack) -> None:
    sidecar = QUICK.format(suffix="drained").replace("n_epochs: 1", "n_epochs: 3")
    stack.drop("drained", support_rows(120), sidecar)
    job = stack.running("drained.jsonl", "trainer")
    stack.wait_for_events(job["id"], "metrics", 3)
    stack.compose("stop", "trainer")
    assert stack.inspect("trainer")["State"]["ExitCode"] == 0
    assert [key for key in stack.ledger(f"jobs/{job['id']}/trainer/attempt-1/") if key.endswith("manifest.json")]
    stack.start("trainer")
    stack.running("drained.jsonl", "evaluator")
    stack.kill("vllm")
    stack.start("vllm")
    stack.ended_well_and_once("drained.jsonl")
