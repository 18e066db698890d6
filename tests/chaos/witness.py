"""Reads what is there: during a run every `result.json`, because one that was replaced leaves no trace; and at the end
everything that the oracle compares."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from shared.events import BY_TOPIC, Deployment, EvalCompleted, Job, JobFailed, StageResult
from shared.kafka.envelope import DLQ_SUFFIX
from tests.chaos.facts import Facts, JobFound, Record, Result, Version, bugs_of
from tests.chaos.stack import Stack
from tests.chaos.workload import STORE_ERRORS, ask, client_of

BUCKET = "tunestream"
LOOK_SECONDS = 2.0
NO_PYTHON_LOG = ("weed", "tansu", "supervisord", "render", "minio", "kafka", "vllm")
"""Parts whose logs are not ours. Their errors show in what the services make of them."""
ALLOWED = (
    # aiokafka's words for a broker that is away
    '"logger": "aiokafka", "message": "Unable connect to ',
    '"logger": "aiokafka", "message": "Unable to update metadata',
    '"logger": "aiokafka", "message": "Unable to request metadata',
    '"logger": "aiokafka.consumer.fetcher", "message": "Failed fetch messages',
    # Tansu's answer while its own store is away
    '"logger": "aiokafka.cluster", "message": "Error fetching metadata for topic',
)
"""Lines of level `error` that are no bug."""


class Witness:
    """Remembers the ETags with which each result was seen."""

    def __init__(self, stack: Stack, facts: Facts) -> None:
        self._s3 = stack.store
        self._facts = facts
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)

    def look(self) -> dict[str, str]:
        """All keys below `jobs/` with their ETags."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="jobs/")
        found = {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", [])}
        for key, etag in found.items():
            if key.endswith("/result.json"):
                self._facts.seen.setdefault(key, set()).add(etag)
        return found

    def unpublished(self) -> list[str]:
        """The results whose event is not on its topic yet, as the ledger says."""
        keys = self.look().keys()
        return [key for key in keys if key.endswith("/result.json") and key.replace("result", "published") not in keys]

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            try:
                self.look()
            except STORE_ERRORS:
                continue


def collect(stack: Stack, facts: Facts) -> None:
    """Fill in what is there, after everything has ended."""
    s3 = stack.store
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    times = {item["Key"]: item["LastModified"].timestamp() for page in pages for item in page.get("Contents", [])}
    keys = list(times)

    def read(key: str) -> bytes:
        body: bytes = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    shown = _shown(stack)
    for key in keys:
        parts = key.split("/")
        if parts[0] == "jobs" and parts[2:] == ["job.json"]:
            job = Job.model_validate_json(read(key))
            own = [each for each in keys if each.startswith(f"jobs/{job.job_id}/") and each.endswith("/result.json")]
            results = tuple(_result(StageResult.model_validate_json(read(each)), times[each]) for each in own)
            facts.jobs.append(
                JobFound(
                    job.job_id, job.dataset.key, job.model, job.alias, job.origin.parent_job, results,
                    shown.get(job.job_id),
                )
            )  # fmt: skip
        elif parts[0] == "deployments":
            deployment = Deployment.model_validate_json(read(key))
            versions = [Version(each.model, each.job_id, each.at) for each in reversed(deployment.history)]
            facts.aliases[deployment.alias] = versions
        elif parts[0] == "quarantine":
            facts.quarantine.append(f"{key}: {read(key)[:300]!r}")
    facts.records, facts.letters = asyncio.run(_records(stack.all_topics))
    facts.base = stack.user.env["TUNESTREAM_BASE"]
    client = client_of(stack.user)
    models = [job.model for job in facts.jobs if any(result.stage == "inference" for result in job.results)]
    facts.exact = [ask(client, name) for name in (facts.base, *facts.aliases, *models)]
    lines: dict[str, list[str]] = {}
    for part, line in stack.log_lines():
        if part not in NO_PYTHON_LOG:
            lines.setdefault(part, []).append(line)
    for part, own_lines in lines.items():
        # vLLM writes into the log of inference, which starts it, and its end by SIGKILL looks like a bug
        judged = [line for line in own_lines if line.startswith("{")] if part == "inference" else own_lines
        counted = Counter(bugs_of(judged, ALLOWED))
        facts.bugs += [f"{part}: {line}" for line in counted]


def _result(result: StageResult, at: float) -> Result:
    event = result.event.event()
    return Result(
        stage=result.stage,
        outcome=result.outcome,
        topic=result.event.topic,
        ce_id=result.event.id,
        attempt=result.attempt,
        at=at,
        passed=event.passed if isinstance(event, EvalCompleted) else None,
        code=f"{event.code}: {event.message}"[:300] if isinstance(event, JobFailed) else "",
    )


def _shown(stack: Stack) -> dict[str, str]:
    """The status of every job by the api service, which may be starting."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return {job["id"]: job["status"] for job in stack.user.jobs()}
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


async def _partitions(arguments: dict[str, Any], topics: list[str]) -> list[TopicPartition]:
    """The partitions of topics. A consumer that has not subscribed to them does not know those of Apache Kafka."""
    admin = AIOKafkaAdminClient(**arguments)
    await admin.start()
    try:
        return [
            TopicPartition(described["topic"], partition["partition"])
            for described in await admin.describe_topics(topics)
            for partition in described["partitions"]
        ]
    finally:
        await admin.close()


async def _records(arguments: dict[str, Any]) -> tuple[list[Record], list[str]]:
    """All records of the topics, and all dead letters."""
    consumer = AIOKafkaConsumer(**arguments, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    records, letters = [], []
    try:
        topics = sorted(topic for topic in await consumer.topics() if topic.removesuffix(DLQ_SUFFIX) in BY_TOPIC)
        partitions = await _partitions(arguments, topics)
        assert partitions, "the topics have partitions"
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        while [each for each in partitions if await consumer.position(each) < ends[each]]:
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                for record in batch:
                    headers = {name: value.decode(errors="replace") for name, value in record.headers}
                    if record.topic.endswith(DLQ_SUFFIX):
                        place = f"{record.topic}/{record.partition}@{record.offset}"
                        letters.append(f"{place}: {headers.get('dlq_reason')} {record.value[:200]!r}")
                    else:
                        job_id = str(json.loads(record.value).get("job_id") or "")
                        records.append(Record(record.topic, job_id, headers.get("ce_id", "")))
    finally:
        await consumer.stop()
    return records, letters
