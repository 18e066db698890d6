"""Storage after many jobs with retention on: what is there is what the policy keeps, to the byte, and all of it works.

What the policy keeps is counted here in another way than the janitor decides it: the documents of the ledger, and what
the results refer to. Trainings are killed on the way, so that there are attempts that decided nothing.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import BASE, StackUnderTest
from tests.support.data.datasets import good
from tests.support.environment import without_settings
from tests.support.user import parse_exports, support_rows

pytestmark = pytest.mark.timeout(7200)

JOBS = int(os.environ.get("TUNESTREAM_STORAGE_JOBS", "50"))
ALIASES = 5
EVERY_KILL = 6
"""Of so many jobs one has its training killed."""
RETENTION = {
    "TUNESTREAM_RETENTION__ATTEMPT_DAYS": "0",
    "TUNESTREAM_RETENTION__REPORT_DAYS": "0",
    "TUNESTREAM_RETENTION__INBOX_DAYS": "0",
    "TUNESTREAM_JANITOR__SWEEP_SECONDS": "20",
    "TUNESTREAM_JANITOR__TOMBSTONES_SECONDS": "5",
}
SETTINGS = """
hyperparameters: {{n_epochs: 2, batch_size: 8}}
evaluation: {{max_examples: 4, few_shot: 1, max_tokens: 16}}
gate: {{promote: always}}
suffix: storage-{alias}
seed: {seed}
"""
DOCUMENT = re.compile(r"jobs/[^/]+/(job\.json|control/[^/]+|[a-z]+/(request|claim|result|published|decision)\.json)")
Sizes = Mapping[str, int]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    started = StackUnderTest({}, tmp_path_factory.mktemp("stack"))
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(without_settings(os.environ)):
            patch.delenv(name)
        for name, value in RETENTION.items():
            patch.setenv(name, value)
        try:
            started.tunestream("up", "--detach", "--base", str(BASE), timeout=600)
            started.env = parse_exports(started.tunestream("env").stdout)
            yield started
        finally:
            started.tunestream("down", timeout=180)
            assert not started.processes()


def test_what_is_there_is_what_the_policy_keeps(stack: StackUnderTest) -> None:
    names = [f"storage-{number}" for number in range(JOBS)]
    for number, name in enumerate(names):
        rows = support_rows(40) + good(number + 1)[-200:].splitlines(keepends=True)[-1]
        stack.drop(name, rows, SETTINGS.format(alias=number % ALIASES, seed=number))
    peak, kills = follow(stack, names)
    jobs = list(stack.jobs())
    assert len(jobs) == JOBS
    assert [job["error"] for job in jobs if job["status"] != "succeeded"] == []
    swept_twice(stack)

    there = sizes(stack)
    kept = kept_by_policy(stack, there)
    attempts = Counter(job["stages"]["trainer"]["state"] for job in jobs)
    say(f"\n{JOBS} jobs, {kills} trainings killed: {dict(attempts)}")
    say(f"the bucket held at most {mib(peak)}; after the sweep {mib(sum(there.values()))} in {len(there)} objects")
    say(f"the policy's own sum: {mib(sum(there[key] for key in kept))} in {len(kept)} objects")
    for kind, size in by_kind(there).most_common():
        say(f"  {kind:40} {mib(size)}")
    assert sorted(there.keys() - kept) == [], "nothing is there that the policy does not keep"

    asked = answers(stack, jobs)
    say(f"{asked} models, checkpoints and aliases were asked, and all answered")


def follow(stack: StackUnderTest, names: list[str]) -> tuple[int, int]:
    """Wait for the end of all jobs, and kill some trainings. Returns the most bytes in the bucket, and the kills."""
    peak, kills, killed = 0, 0, set[str]()
    deadline = time.monotonic() + 120 * len(names) + 600
    while True:
        jobs = list(stack.jobs())
        if len(jobs) == len(names) and all(job["finished_at"] for job in jobs):
            return peak, kills
        assert time.monotonic() < deadline, [job["id"] for job in jobs if not job["finished_at"]]
        peak = max(peak, sum(sizes(stack).values()))
        for job in jobs:
            stage = job["stages"]["trainer"]
            number = int(job["dataset"]["key"].removesuffix(".jsonl").rpartition("-")[2])
            if number % EVERY_KILL == 0 and job["id"] not in killed and stage["state"] == "running" and stage["step"]:
                killed.add(job["id"])
                kills += kill_training(stack)
        time.sleep(2)


def kill_training(stack: StackUnderTest) -> int:
    children = psutil.Process(stack.pid("trainer")).children(recursive=True)
    victims = [child for child in children if "services.trainer.engine" in " ".join(child.cmdline())]
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
    return len(victims)


def swept_twice(stack: StackUnderTest) -> None:
    """Wait until two whole sweeps have begun and ended after now: the second one finds all that the first may not."""
    seen, deadline = set[str](), time.monotonic() + 300
    while len(seen) < 3:
        assert time.monotonic() < deadline, "the janitor sweeps"
        with suppress(Exception):
            seen.add(stack.s3.head_object(Bucket="tunestream", Key="janitor/swept.json")["ETag"])
        time.sleep(1)


def sizes(stack: StackUnderTest) -> dict[str, int]:
    """Every object of the bucket, in bytes."""
    pages = stack.s3.get_paginator("list_objects_v2").paginate(Bucket="tunestream")
    return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}


def kept_by_policy(stack: StackUnderTest, there: Sizes) -> set[str]:
    """The documents of the ledger, and what the results refer to."""
    kept = {key for key in there if not key.startswith("jobs/") or DOCUMENT.fullmatch(key)}
    named = named_models(stack, there)
    for key in there:
        if key.startswith("jobs/") and key.endswith("/result.json"):
            result = read(stack, key)
            told = result["event"]["data"]
            if result["stage"] != "evaluator":
                kept |= set(referred(stack, told, there))
            elif told["model"] in named:  # its report, and the answers that the report was made of
                folder = key.replace("result.json", f"attempt-{result['attempt']}/")
                kept |= {each for each in there if each.startswith(folder)}
    assert not [key for key in there if key.startswith(("pending/", "deleted/"))], "no work is open"
    return kept


def referred(stack: StackUnderTest, data: Any, there: Sizes) -> Iterator[str]:
    """The objects that an event refers to; of a folder, those of its manifest."""
    if isinstance(data, dict):
        if isinstance(data.get("key"), str) and data["key"].startswith("jobs/"):
            yield data["key"]
        if isinstance(data.get("prefix"), str):
            manifest = f"{data['prefix'].rstrip('/')}/manifest.json"
            assert manifest in there, f"{manifest} is referred to, and gone"
            yield manifest
            yield from referred(stack, read(stack, manifest), there)
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            yield from referred(stack, item, there)


def named_models(stack: StackUnderTest, there: Sizes) -> set[str]:
    """The models that an alias names, or has named."""
    documents = [read(stack, key) for key in there if key.startswith("deployments/")]
    versions = [[each["current"], each["previous"], *each["history"]] for each in documents]
    return {version["model"] for each in versions for version in each if version}


def answers(stack: StackUnderTest, jobs: list[dict[str, Any]]) -> int:
    """Ask every model, every listed checkpoint and every alias. Returns how many."""
    models = [job["fine_tuned_model"] for job in jobs] + [f"storage-{number}" for number in range(min(ALIASES, JOBS))]
    for job in jobs:
        result = read(stack, f"jobs/{job['id']}/trainer/result.json")
        steps = [checkpoint["step"] for checkpoint in result["event"]["data"]["checkpoints"]]
        assert steps, "each job lists its checkpoints"
        models += [f"{job['fine_tuned_model']}:ckpt-step-{step}" for step in steps]
    for model in models:
        messages = [{"role": "user", "content": "What is 1 plus 1?"}]
        answer = stack.openai.chat.completions.create(model=model, messages=messages, max_tokens=2)  # type: ignore[arg-type]
        assert answer.usage and answer.usage.completion_tokens, model
    return len(models)


def read(stack: StackUnderTest, key: str) -> Any:
    return json.loads(stack.s3.get_object(Bucket="tunestream", Key=key)["Body"].read())


def by_kind(there: Sizes) -> Counter[str]:
    """Bytes by what they are."""
    found: Counter[str] = Counter()
    for key, size in there.items():
        parts = key.split("/")
        kind = (
            parts[0] if parts[0] != "jobs" else "/".join(part for part in parts[2:5] if "." not in part) or "manifest"
        )
        found[re.sub(r"attempt-\d+", "attempt", re.sub(r"step-\d+", "step", kind))] += size
    return found


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"
