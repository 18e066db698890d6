"""A user of Tunestream, with addresses and keys, an S3 client, the OpenAI client, and ways to wait for a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import httpx
from openai import OpenAI

from services.api.domain.state import FINAL
from tests.support.data.datasets import good

ROOT = Path(__file__).parents[2]
QUICK = """
hyperparameters: {{n_epochs: 1, batch_size: 8}}
evaluation: {{max_examples: 4, few_shot: 1, max_tokens: 16}}
suffix: {suffix}
"""

HTTP = httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))
"""Each new client reads all certificates of the system, which is more work than what it asks for while a test waits."""


@dataclass
class User:
    """A user of a running stack. `env` is what `tunestream env` prints, or `client.env` of the full stack."""

    env: dict[str, str]

    @property
    def openai(self) -> OpenAI:
        return OpenAI(base_url=self.env["OPENAI_BASE_URL"], api_key=self.env["OPENAI_API_KEY"])

    @cached_property
    def s3(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name=self.env["AWS_DEFAULT_REGION"],
            verify=self.env.get("AWS_CA_BUNDLE"),
        )

    def drop(self, name: str, rows: bytes | Path, sidecar: str | None = None) -> None:
        """Upload a dataset as any S3 client would. Its settings are uploaded first."""
        if sidecar is not None:
            self.s3.put_object(Bucket="datasets", Key=f"{name}.job.yaml", Body=sidecar.encode())
        if isinstance(rows, Path):
            self.s3.upload_file(str(rows), "datasets", f"{name}.jsonl")
        else:
            self.s3.put_object(Bucket="datasets", Key=f"{name}.jsonl", Body=rows)

    # --- the api service --------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.env['OPENAI_API_KEY']}"}
        answer = HTTP.get(self.env["TUNESTREAM_API_URL"] + path, headers=headers)
        answer.raise_for_status()
        return answer.json()

    def jobs(self) -> Iterator[dict[str, Any]]:
        """All jobs, newest first, page by page."""
        after = ""
        while True:
            page = self.get(f"/jobs?limit=100{after}")
            yield from page["data"]
            if not page["has_more"]:
                return
            after = f"&after={page['data'][-1]['id']}"

    def job_of(self, key: str) -> dict[str, Any] | None:
        """The newest job of a dataset; None while there is none, or while the api is down."""
        try:
            return next((job for job in self.jobs() if job["dataset"]["key"] == key), None)
        except httpx.HTTPError:
            return None

    def wait(
        self, key: str, condition: Callable[[dict[str, Any]], bool], what: str, seconds: float = 240
    ) -> dict[str, Any]:
        """Wait until the newest job of a dataset meets a condition. A failure names `what` was waited for."""
        deadline = time.monotonic() + seconds
        job = None
        while time.monotonic() < deadline:
            job = self.job_of(key)
            if job and condition(job):
                return job
            time.sleep(0.5)  # each look lists all jobs
        raise AssertionError(f"{key}: not within {seconds} s: {what}; last seen: {job}")

    def ended(self, key: str, seconds: float = 240) -> dict[str, Any]:
        """Wait for the end of the job, whatever its final status."""
        return self.wait(key, lambda job: job["status"] in FINAL, "the job ends", seconds)

    def ended_well_and_once(self, key: str, seconds: float = 420) -> dict[str, Any]:
        """Wait for the end of the job, which must have succeeded, with exactly one result for each of its stages."""
        job = self.ended(key, seconds)
        assert job["status"] == "succeeded", job["error"]
        results = [name for name in self.ledger(f"jobs/{job['id']}/") if name.endswith("/result.json")]
        assert len(results) == len(job["stages"])
        return job

    def running(self, key: str, stage: str) -> dict[str, Any]:
        """Wait until a stage of the job has begun."""
        return self.wait(key, lambda job: job["stages"][stage]["state"] != "waiting", f"{stage} begins")

    # --- the ledger -------------------------------------------------------------------------------------------

    def ledger(self, prefix: str) -> list[str]:
        """The keys below a prefix."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket="tunestream", Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]


def parse_exports(text: str) -> dict[str, str]:
    """The variables of a shell script that consists of `export NAME='value'` lines."""
    lines = (line.removeprefix("export ").partition("=") for line in text.splitlines())
    return {name: value.strip("'") for name, _, value in lines}


def support_rows(count: int) -> bytes:
    """The first rows of the bundled dataset. A test takes as few as it needs: every training step costs time."""
    lines = (ROOT / "examples" / "support.jsonl").read_bytes().splitlines(keepends=True)
    return b"".join(lines[:count])


def salted_rows(count: int, salt: str) -> bytes:
    """Rows, one of which no other test has, so that they make a job of their own."""
    return support_rows(count) + good(1).replace(b"What is", f"{salt}: what is".encode())
