"""The embedded stack as a user starts it, with the real broker, S3 server and vLLM, on the tiny base."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil
import pytest
from openai import OpenAI

from cli.stack import leftovers, run
from cli.stack.plan import absolute

ROOT = Path(__file__).parents[2]
BASE = ROOT / ".cache" / "tiny-base"
QUICK = """
hyperparameters: {{n_epochs: 1, batch_size: 8}}
evaluation: {{max_examples: 4, few_shot: 1, max_tokens: 16}}
suffix: {suffix}
"""


@dataclass
class StackUnderTest:
    """What a user has: the command, the addresses, and the processes to break."""

    state: Path
    env: dict[str, str]

    def tunestream(self, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli", *arguments, "--state", str(self.state)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    @property
    def openai(self) -> OpenAI:
        return OpenAI(base_url=self.env["OPENAI_BASE_URL"], api_key=self.env["OPENAI_API_KEY"])

    @property
    def s3(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name=self.env["AWS_DEFAULT_REGION"],
        )

    def drop(self, name: str, rows: bytes | Path, sidecar: str | None = None) -> None:
        """As any S3 client would, the settings first."""
        if sidecar is not None:
            self.s3.put_object(Bucket="datasets", Key=f"{name}.job.yaml", Body=sidecar.encode())
        if isinstance(rows, Path):
            self.s3.upload_file(str(rows), "datasets", f"{name}.jsonl")
        else:
            self.s3.put_object(Bucket="datasets", Key=f"{name}.jsonl", Body=rows)

    # --- the api service --------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.env['OPENAI_API_KEY']}"}
        answer = httpx.get(self.env["TUNESTREAM_API_URL"] + path, headers=headers, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def job_of(self, key: str) -> dict[str, Any] | None:
        """The newest job of a dataset; None while there is none, or while the api is down."""
        try:
            jobs = self.get("/jobs?limit=100")["data"]
        except httpx.HTTPError:
            return None
        return next((job for job in jobs if job["dataset"]["key"] == key), None)

    def wait(
        self, key: str, condition: Callable[[dict[str, Any]], bool], what: str, seconds: float = 240
    ) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        job = None
        while time.monotonic() < deadline:
            job = self.job_of(key)
            if job and condition(job):
                return job
            time.sleep(0.2)
        raise AssertionError(f"{key}: not within {seconds} s: {what}; last seen: {job}")

    def ended(self, key: str, seconds: float = 240) -> dict[str, Any]:
        return self.wait(
            key, lambda job: job["status"] in ("succeeded", "failed", "cancelled"), "the job ends", seconds
        )

    def running(self, key: str, stage: str) -> dict[str, Any]:
        return self.wait(key, lambda job: job["stages"][stage]["state"] != "waiting", f"{stage} begins")

    # --- the ledger and the processes -------------------------------------------------------------------------

    def ledger(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket="tunestream", Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def pid(self, program: str) -> int:
        found = run.running(self.state)
        assert found is not None, "the stack runs"
        pid = found.supervisor.processes()[program].pid
        assert pid, f"{program} runs"
        return pid

    def kill(self, program: str) -> None:
        """As the kernel does when memory runs out: no warning, no last words."""
        os.kill(self.pid(program), signal.SIGKILL)

    def memory(self, program: str) -> int:
        return psutil.Process(self.pid(program)).memory_info().rss

    def processes(self) -> list[Any]:
        return leftovers.find(absolute(self.state))


def parse_exports(text: str) -> dict[str, str]:
    lines = (line.removeprefix("export ").partition("=") for line in text.splitlines())
    return {name: value.strip("'") for name, _, value in lines}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    assert (BASE / "config.json").is_file(), "no tiny base: python -m examples.tiny_base"
    started = StackUnderTest(tmp_path_factory.mktemp("stack"), {})
    try:
        started.tunestream("up", "--detach", "--base", str(BASE), timeout=600)
        started.env = parse_exports(started.tunestream("env").stdout)
        yield started
    finally:
        started.tunestream("down", timeout=180)
        left = started.processes()
        assert not left, f"down left processes: {left}"


def support_rows(count: int) -> bytes:
    """The first rows of the bundled dataset: as many as a test needs, since every step costs time on two cores."""
    lines = (ROOT / "examples" / "support.jsonl").read_bytes().splitlines(keepends=True)
    return b"".join(lines[:count])


def environment(stack: StackUnderTest) -> Mapping[str, str]:
    """A stranger's shell after `eval "$(tunestream env)"`."""
    return {**os.environ, **stack.env}
