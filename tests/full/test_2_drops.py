"""Whatever an S3 client does to the bucket, each content at each key becomes one job, found by MinIO's notification."""

from __future__ import annotations

import io
import uuid
from typing import Any

import pytest

from tests.full.conftest import FullStack
from tests.support.data.datasets import good

pytestmark = pytest.mark.timeout(600, func_only=True)

# Too few rows: such a job fails in validation, but its upload is announced all the same.
SMALL = good(2)
PART = 5 * 2**20


def jobs_of(stack: FullStack, key: str) -> list[dict[str, Any]]:
    return [job for job in stack.get("/jobs?limit=100")["data"] if job["dataset"]["key"] == key]


def taken(stack: FullStack, key: str) -> dict[str, Any]:
    return stack.wait(key, lambda job: True, "there is a job", 60)


@pytest.mark.parametrize("name", ["with space", "ünïcödé-日本", "plus+and%41", "deep/er folder/x"])
def test_any_name_is_a_job(stack: FullStack, name: str) -> None:
    stack.drop(name, SMALL)
    job = taken(stack, f"{name}.jsonl")
    assert job["dataset"]["size"] == len(SMALL)


def test_a_multipart_upload_is_one_job_of_all_its_parts(stack: FullStack) -> None:
    row = good(1)
    body = row * (PART * 2 // len(row) + 1)
    s3 = stack.s3
    upload = s3.create_multipart_upload(Bucket="datasets", Key="parts.jsonl")["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(body), PART), 1):
        piece = io.BytesIO(body[start : start + PART])
        tag = s3.upload_part(Bucket="datasets", Key="parts.jsonl", UploadId=upload, PartNumber=number, Body=piece)
        parts.append({"PartNumber": number, "ETag": tag["ETag"]})
    assert not jobs_of(stack, "parts.jsonl")
    s3.complete_multipart_upload(
        Bucket="datasets", Key="parts.jsonl", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert taken(stack, "parts.jsonl")["dataset"]["size"] == len(body)
    assert len(jobs_of(stack, "parts.jsonl")) == 1


def test_other_bytes_are_another_job_and_the_same_bytes_are_none(stack: FullStack) -> None:
    stack.drop("again", SMALL)
    first = taken(stack, "again.jsonl")
    stack.drop("again", SMALL)
    stack.drop("again", good(3))
    stack.wait("again.jsonl", lambda job: job["id"] != first["id"], "the other bytes are a job", 60)
    stack.drop("again", SMALL)
    stack.drop("after-again", SMALL)  # once this drop has a job, ingest has looked at the drop before it
    taken(stack, "after-again.jsonl")
    assert len(jobs_of(stack, "again.jsonl")) == 2


def test_a_copy_is_a_job_of_its_own(stack: FullStack) -> None:
    stack.drop("original", SMALL)
    original = taken(stack, "original.jsonl")
    stack.s3.copy_object(
        Bucket="datasets", Key="copy.jsonl", CopySource={"Bucket": "datasets", "Key": "original.jsonl"}
    )
    copy = taken(stack, "copy.jsonl")
    assert copy["id"] != original["id"]
    assert copy["dataset"]["sha256"] == original["dataset"]["sha256"]


def test_a_drop_while_kafka_is_down_is_found_by_the_sweep(stack: FullStack) -> None:
    key = f"unheard-{uuid.uuid4().hex[:6]}"
    stack.kill("kafka")
    try:
        stack.drop(key, SMALL)
        taken(stack, f"{key}.jsonl")  # the api knows the job from the ledger
    finally:
        stack.start("kafka")
    stack.ended(f"{key}.jsonl", 120)
    assert len(jobs_of(stack, f"{key}.jsonl")) == 1
