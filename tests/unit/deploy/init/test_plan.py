"""What `deploy/stack.yaml` declares, and the topics, ACLs and policies that follow from it."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from deploy.init import plan
from shared.errors import ConfigError
from shared.events import EVENTS, RUNNER_STAGES, STAGE_NAMES, StageName
from shared.kafka.topics import MAX_LETTER_BYTES
from shared.stages.stage import STAGES
from tests.support.user import ROOT

STACK = plan.load(ROOT / "deploy" / "stack.yaml")


def test_every_event_has_its_topic_and_its_dead_letters() -> None:
    topics = plan.topics(STACK.kafka)
    for event in EVENTS:
        assert {event.topic, event.topic + ".dlq"} <= set(topics)
    assert "bucket.notifications.dlq" not in topics


def test_the_largest_dead_letter_that_services_send_is_taken() -> None:
    assert STACK.kafka.dead_letters.max_message_bytes == MAX_LETTER_BYTES


def test_a_stage_may_read_what_asks_for_it_and_bury_it() -> None:
    rules = plan.rules(STACK.kafka)
    for name, stage in STAGES.items():
        topic = stage.asked_by.topic
        assert plan.Rule(name, "topic", topic, False, "READ") in rules
        assert plan.Rule(name, "topic", f"{topic}.dlq", False, "WRITE") in rules
        assert plan.Rule(name, "group", f"{name}.", True, "READ") in rules


def test_a_stranger_may_announce_and_listen_and_nothing_else() -> None:
    mine = {rule[1:] for rule in plan.rules(STACK.kafka) if rule.user == "stranger"}
    assert mine == {
        ("topic", "dataset.uploaded", False, "WRITE"),
        ("topic", "synthesis.requested", False, "WRITE"),
        ("topic", "synthesis.progress", False, "READ"),
        ("topic", "model.deployed", False, "READ"),
        ("topic", "job.progress", False, "READ"),
        ("topic", "job.failed", False, "READ"),
        ("group", "stranger.", True, "READ"),
    }


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("partitions: 6", "partitions: six", "kafka.topics.dataset.uploaded.partitions"),
        ("retention_days", "retention", "retention: Extra inputs are not permitted"),
        ("list: [datasets/*, tunestream/q", "list: [datasets, tunestream/q", "s3.users.stranger.list.0"),
        ("kafka:", "kafka: {", "cannot be read as YAML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, before: str, after: str, says: str) -> None:
    path = tmp_path / "stack.yaml"
    text = (ROOT / "deploy" / "stack.yaml").read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(ConfigError, match=re.escape(says)):
        plan.load(path)


def test_a_user_without_a_password_is_named() -> None:
    passwords = {"kafka": dict.fromkeys(STACK.kafka.users, "x"), "s3": dict.fromkeys(STACK.s3.users, "x")}
    assert plan.without_password(STACK, passwords) == []
    del passwords["s3"]["trainer"]
    assert plan.without_password(STACK, passwords) == ["s3.trainer"]


def test_every_name_of_kafka_is_taken_literally() -> None:
    kafka = plan.Kafka(
        topics={}, dead_letters=plan.Topic(partitions=1, retention_days=1), users={"all": plan.KafkaUser(read=("*",))}
    )
    assert plan.rules(kafka) == {plan.Rule("all", "topic", "*", False, "READ")}


def test_a_policy_lists_below_prefixes_and_gives_each_verb_its_objects() -> None:
    user = plan.S3User(
        list=("drops/*", "ledger/jobs/*"),
        read=("drops/*",),
        write=("ledger/jobs/*/mine/*",),
        delete=("ledger/pending/mine/*",),
        abort=("ledger/files/*",),
        uploads=("ledger",),
    )
    assert plan.policy(user)["Statement"] == [
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::drops"]},
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": ["arn:aws:s3:::ledger"],
            "Condition": {"StringLike": {"s3:prefix": ["jobs/*"]}},
        },
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::drops/*"]},
        {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": ["arn:aws:s3:::ledger/jobs/*/mine/*"]},
        {"Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": ["arn:aws:s3:::ledger/pending/mine/*"]},
        {"Effect": "Allow", "Action": ["s3:AbortMultipartUpload"], "Resource": ["arn:aws:s3:::ledger/files/*"]},
        {"Effect": "Allow", "Action": ["s3:ListBucketMultipartUploads"], "Resource": ["arn:aws:s3:::ledger"]},
        {"Effect": "Allow", "Action": ["s3:AbortMultipartUpload"], "Resource": ["arn:aws:s3:::ledger/*"]},
    ]
    actions = {
        action for user in STACK.s3.users.values() for s in plan.policy(user)["Statement"] for action in s["Action"]
    }
    assert actions == {
        *("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
        *("s3:ListBucketMultipartUploads", "s3:AbortMultipartUpload"),
    }


def allowed(verb: str, key: str) -> set[str]:
    """The users to whom `stack.yaml` gives the right `verb` on the object `key` of the bucket `tunestream`."""
    return {
        name
        for name, user in STACK.s3.users.items()
        if any(fnmatch(f"tunestream/{key}", pattern) for pattern in getattr(user, verb))
    }


def writers(key: str) -> set[str]:
    """The users who may write the object `key` of the bucket `tunestream`."""
    return allowed("write", key)


@pytest.mark.parametrize(
    ("key", "who"),
    [
        *((f"pending/{stage}/0000000001.000-ftjob-x", {stage}) for stage in RUNNER_STAGES),
        ("jobs/ftjob-x/trainer/attempt-1/checkpoints/step-2/adapter_model.safetensors", {"janitor"}),
        ("jobs/ftjob-x/evaluator/attempt-3/report.json", {"janitor"}),
        ("deleted/checkpoints/x.json", {"janitor"}),
        ("ingest/inbox/x", {"janitor"}),
        ("ingest/seen/x", {"janitor"}),
        ("ingest/retries/ftjob-x.json", {"janitor"}),
        ("files/file-x/content", {"janitor"}),
        ("files/file-x/meta.json", {"janitor"}),
        ("uploads/upload_x/parts/part_y/content", {"janitor"}),
        ("deleted/files/file-x.json", {"janitor"}),
        ("ingest/asked/ftjob-x.json", {"janitor"}),
        ("quarantine/drop/x.json", {"janitor"}),
        ("jobs/ftjob-x/job.json", set()),
        ("jobs/ftjob-x/control/cancel-1.json", set()),
        *((f"jobs/ftjob-x/{stage}/{name}.json", set()) for stage in STAGE_NAMES for name in ("claim", "result")),
        ("deleted/models/ftjob-x.json", {"janitor"}),
        ("deployments/support.json", set()),
        ("deployments/project/support.json", set()),
        ("permissions/ftjob-x/cp_x.json", set()),
        ("bases/x.json", set()),
        ("gpu/x/turn.json", set()),
        ("janitor/claim.json", set()),
        ("keys/key_x.json", set()),
        ("sweeps/sweep-x/sweep.json", set()),
        ("sweeps/sweep-x/trials/0000.json", set()),
    ],
)
def test_only_the_janitor_deletes_beside_each_stages_own_entries_of_open_work(key: str, who: set[str]) -> None:
    assert allowed("delete", key) == who


def test_nobody_may_delete_a_dataset() -> None:
    assert not [user for user in STACK.s3.users.values() if any(name.startswith("datasets/") for name in user.delete)]


@pytest.mark.parametrize("stage", RUNNER_STAGES)
def test_a_stage_keeps_its_part_of_the_index_and_the_stage_before_adds_to_it(stage: StageName) -> None:
    entry = f"pending/{stage}/0000000001.000-ftjob-x"
    # who creates an object reads it where it exists
    assert allowed("write", entry) == allowed("read", entry) == {stage, STAGES[stage].upstream, "api", "janitor"}
    assert stage in allowed("list", f"pending/{stage}/")


@pytest.mark.parametrize(
    ("key", "who"),
    [
        ("jobs/ftjob-x/job.json", {"ingest"}),
        *((f"jobs/ftjob-x/{stage}/result.json", {stage}) for stage in STAGE_NAMES),
        ("jobs/ftjob-x/control/cancel-1.json", {"api"}),
        ("jobs/ftjob-x/control/pause-1.json", {"api"}),
        ("jobs/ftjob-x/control/resume-1.json", {"api"}),
        ("ingest/retries/ftjob-x.json", {"api", "ingest"}),
        ("ingest/asked/ftjob-x.json", {"api", "ingest"}),
        ("ingest/seen/x", {"ingest"}),
        ("files/file-x/meta.json", {"api"}),
        ("uploads/upload_x/decision.json", {"api"}),
        ("deleted/files/file-x.json", {"api"}),
        ("deleted/uploads/upload_x.json", {"api"}),
        ("deleted/checkpoints/x.json", {"trainer"}),
        ("keys/key_x.json", {"api"}),
        ("deployments/project/support.json", {"inference"}),
        ("deleted/models/ftjob-x.json", {"inference"}),
        ("permissions/ftjob-x/cp_x.json", {"api"}),
        ("sweeps/claim.json", {"api"}),
        ("sweeps/sweep-x/trials/0000.json", {"api"}),
    ],
)
def test_one_service_writes_a_job_and_each_of_its_results(key: str, who: set[str]) -> None:
    """Also where a job is tried again: the api only asks, and each stage adopts its own result."""
    assert writers(key) == who


def test_api_keys_are_read_by_the_two_services_that_ask_for_them() -> None:
    assert allowed("read", "keys/key_x.json") == allowed("list", "keys/") == {"api", "inference"}


@pytest.mark.parametrize("key", ["deleted/models/ftjob-x.json", "permissions/ftjob-x/cp_x.json"])
def test_whoever_obeys_tombstones_and_permissions_of_models_reads_them(key: str) -> None:
    readers = {"inference", "api", "ingest"} | ({"janitor"} if key.startswith("deleted/") else set())
    assert allowed("read", key) == readers
    for service in ("inference", "api", "ingest"):
        # without the right to list, some stores answer 403 for an object that is not there
        assert service in allowed("list", key), service


def test_every_stage_and_the_api_list_what_the_user_of_a_job_wants() -> None:
    assert allowed("list", "jobs/ftjob-x/control/") >= {*RUNNER_STAGES, "api"}
