"""Which keys a bucket notification names: the shapes that MinIO and Amazon send."""

from __future__ import annotations

import json
from urllib.parse import quote_plus

import pytest

from services.ingest.domain import datasets, notifications
from shared.drops import drop_name
from shared.stages.ledger import Entry


def message(*keys: str, bucket: str = "datasets", name: str = "s3:ObjectCreated:Put") -> bytes:
    records = [
        {
            "eventVersion": "2.0",
            "eventSource": "minio:s3",
            "eventName": name,
            "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key), "size": 3, "eTag": "e"}},
        }
        for key in keys
    ]
    return json.dumps({"EventName": name, "Key": f"{bucket}/{keys[0]}", "Records": records}).encode()


@pytest.mark.parametrize(
    "key", ["a.jsonl", "two words.jsonl", "Zürich/数据.jsonl", "1+1=2.jsonl", "100%25.jsonl", "a&b.jsonl"]
)
def test_the_key_is_what_the_user_called_it(key: str) -> None:
    assert notifications.created_keys(message(key), "datasets") == [key]


@pytest.mark.parametrize("kind", ["Put", "Post", "Copy", "CompleteMultipartUpload"])
@pytest.mark.parametrize("prefix", ["s3:", ""])
def test_every_way_to_create_an_object_counts(kind: str, prefix: str) -> None:
    notification = message("a.jsonl", "b.jsonl", name=f"{prefix}ObjectCreated:{kind}")
    assert notifications.created_keys(notification, "datasets") == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    "other",
    [
        message("a.jsonl", bucket="tunestream"),
        message("a.jsonl", name="s3:ObjectRemoved:Delete"),
        message("a.jsonl", name="s3:ObjectAccessed:Get"),
        b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "datasets"}',
    ],
)
def test_other_events_and_other_buckets_name_no_key(other: bytes) -> None:
    assert notifications.created_keys(other, "datasets") == []


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe", b"null", b"[]", b'{"Records": [{"eventName": 1}]}'])
def test_an_invalid_notification_is_refused_without_quoting_it(junk: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not a bucket notification: \d+ fields are wrong$"):
        notifications.created_keys(junk, "datasets")


def test_notifications_and_sweep_give_a_drop_the_same_name() -> None:
    entry = Entry("a.jsonl", "etag", 1, 0.0)
    whole_bucket = {"a.jsonl": "etag", "a.job.json": "1", "a.job.yaml": "2", "b.job.yaml": "3"}
    beside = {key: etag for key, etag in whole_bucket.items() if key.startswith(datasets.sidecar_prefix("a.jsonl"))}
    assert beside == {"a.job.json": "1", "a.job.yaml": "2"}
    name = drop_name("datasets", entry, whole_bucket)
    assert name == drop_name("datasets", entry, beside)
    assert name != drop_name("datasets", entry, beside | {"a.job.yaml": "edited"})
    assert name == drop_name("datasets", entry, beside | {"a.job.json": "never read"})


def test_an_idle_bucket_is_swept_less_and_less_often_and_a_busy_one_at_once() -> None:
    pause, pauses = 0.2, []
    for _ in range(6):
        pause = datasets.next_pause(pause, took=0.08, quiet=60.0, shortest=0.2)
        pauses.append(pause)
    assert pauses == [0.4, 0.8, 1.6, 3.2, 4.0, 4.0]  # 0.08 s of every 4 are 2 %
    assert datasets.next_pause(pause, took=0.08, quiet=5.0, shortest=0.2) == 0.2
    assert datasets.next_pause(100.0, took=90.0, quiet=60.0, shortest=0.2) == 30.0
    assert datasets.next_pause(0.2, took=0.001, quiet=60.0, shortest=0.2) == 0.2
