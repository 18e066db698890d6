"""The full stack as `make full` starts it, from nothing: Kafka, MinIO, Jaeger, Prometheus and vLLM in containers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretStr

from deploy.init import plan
from shared.kafka.security import client_options
from shared.settings import BusSettings, StoreSettings
from shared.store.objects import ObjectStore
from tests.support.user import ROOT, User, parse_exports

BASE = ROOT / ".cache" / "tiny-base"
FILES = ROOT / ".cache" / "full-stack"  # secrets, and after a run the log of all containers
# other ports than those of a stack that may be running already
PORTS = {
    "API_PORT": "18080",
    "INFERENCE_PORT": "18000",
    "KAFKA_PORT": "19094",
    "S3_PORT": "19000",
    "JAEGER_PORT": "26686",
    "OTLP_PORT": "14317",
    "PROMETHEUS_PORT": "19090",
}


@dataclass
class FullStack(User):
    """The containers of a running stack, with the secrets of its administrator."""

    secrets: Path
    settings: dict[str, str] = field(default_factory=dict)

    def compose(self, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = ["docker", "compose", *arguments]
        environment = {**os.environ, **self.settings}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done

    def kill(self, *services: str) -> None:
        """Send SIGKILL. The services stay down until they are started."""
        self.compose("kill", *services)

    def start(self, *services: str) -> None:
        self.compose("start", *services)

    def start_alone(self, service: str) -> None:
        """Start a container whatever becomes of those that it needs, as a machine does that comes back."""
        subprocess.run(["docker", "start", self._container(service)], check=True, capture_output=True)

    def _container(self, service: str) -> str:
        return str(self.compose("ps", "--all", "--quiet", service).stdout.split()[0])

    def inspect(self, service: str) -> dict[str, Any]:
        container = self._container(service)
        found: list[dict[str, Any]] = json.loads(
            subprocess.run(["docker", "inspect", container], check=True, capture_output=True).stdout
        )
        return found[0]

    def down(self) -> None:
        profiles = ("--profile", "cpu", "--profile", "observability")  # profiles of the command line replace all others
        self.compose(*profiles, "down", "--volumes", "--remove-orphans")

    @property
    def passwords(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = json.loads((self.secrets / "passwords.json").read_text())
        return found

    def s3_of(self, user: str) -> Any:
        """An S3 client with the credentials of one service, or of the administrator."""
        return boto3.client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            aws_access_key_id=user,
            aws_secret_access_key=self._s3_password(user),
            region_name=self.env["AWS_DEFAULT_REGION"],
            verify=self.env["AWS_CA_BUNDLE"],
        )

    def _s3_password(self, user: str) -> str:
        return self.passwords["admins"]["s3"] if user == "admin" else self.passwords["s3"][user]

    def ledger(self, prefix: str) -> list[str]:
        pages = self.s3_of("admin").get_paginator("list_objects_v2").paginate(Bucket="tunestream", Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def kafka_of(self, user: str) -> dict[str, Any]:
        """The keyword arguments of aiokafka's clients for one user."""
        bus = BusSettings.model_validate(
            {
                "bootstrap": self.env["TUNESTREAM_KAFKA"],
                "security_protocol": "SASL_SSL",
                "sasl_username": user,
                "sasl_password": self.passwords["kafka"][user],
                "ca_file": self.secrets / "ca.pem",
            }
        )
        return {"bootstrap_servers": bus.bootstrap, **client_options(bus)}

    def librdkafka(self, user: str) -> dict[str, str]:
        """The settings of confluent_kafka's clients for one user. These clients report at once what is denied."""
        return {
            "bootstrap.servers": self.env["TUNESTREAM_KAFKA"],
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": self.passwords["kafka"][user],
            "ssl.ca.location": str(self.secrets / "ca.pem"),
        }

    async def records(self, *topics: str) -> list[Any]:
        """All records that the topics hold now, read as the operator."""
        consumer = AIOKafkaConsumer(**self.kafka_of("operator"), auto_offset_reset="earliest")
        await consumer.start()
        try:
            declared = plan.topics(self.declared.kafka)
            partitions = [
                TopicPartition(topic, number) for topic in topics for number in range(declared[topic].partitions)
            ]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            found: list[Any] = []
            while [p for p in partitions if await consumer.position(p) < ends[p]]:
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    found.extend(records)
            return found
        finally:
            await consumer.stop()

    @property
    def declared(self) -> plan.Stack:
        return plan.load(ROOT / "deploy" / "stack.yaml")

    # --- a user's programs ------------------------------------------------------------------------------------

    def tunestream(self, *arguments: str) -> str:
        """What our command prints in a shell that has sourced `client.env`."""
        command = [sys.executable, "-m", "cli", *arguments]
        environment = {**os.environ, **self.env}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def kcat(self, *arguments: str) -> None:
        """`examples/publish_event.sh` on a Debian that has kcat, with what `client.env` tells a stranger."""
        image = "tunestream-test/kcat"
        install = "apt-get update -qq && apt-get install -y -qq --no-install-recommends kcat"
        recipe = f"FROM debian:bookworm-slim\nRUN {install}\n"
        subprocess.run(["docker", "build", "--quiet", "--tag", image, "-"], input=recipe.encode(), check=True)
        secrets = self.secrets.resolve()
        names = [name for name in self.env if name.startswith(("KAFKA_", "TUNESTREAM_KAFKA"))]
        subprocess.run(
            [*("docker", "run", "--rm", "--network", "host", *(f"--env={name}" for name in names)),
             # its librdkafka cannot do SCRAM with Kafka 4
             "--env=KAFKA_SASL_MECHANISM=PLAIN",
             *(f"--volume={path}:{path}:ro" for path in (ROOT / "examples", secrets)),
             image, str(ROOT / "examples" / "publish_event.sh"), *arguments],
            env={**os.environ, **self.env}, check=True, timeout=60,
        )  # fmt: skip

    # --- what the administrator sees --------------------------------------------------------------------------

    def objects_of(self, user: str) -> ObjectStore:
        """Our own store client with the credentials of one user."""
        return ObjectStore.connect(
            StoreSettings(
                endpoint=self.env["AWS_ENDPOINT_URL"],
                access_key=user,
                secret_key=SecretStr(self._s3_password(user)),
                ca_file=self.secrets / "ca.pem",
            )
        )

    def remove_volume(self, name: str) -> None:
        volume = f"{self.settings['COMPOSE_PROJECT_NAME']}_{name}"
        subprocess.run(["docker", "volume", "rm", volume], check=True, capture_output=True)

    def wait_for_events(self, job_id: str, kind: str, count: int, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            events = self.get(f"/jobs/{job_id}/events?limit=1000&order=asc")["data"]
            if sum(event["type"] == kind for event in events) >= count:
                return
            time.sleep(0.2)
        raise AssertionError(f"{job_id}: fewer than {count} events of type {kind} within {seconds} s")

    def jaeger(self, path: str) -> Any:
        answer = httpx.get(self.env["TUNESTREAM_TELEMETRY__JAEGER_URL"] + path, timeout=30)
        answer.raise_for_status()
        return answer.json()["data"]


@pytest.fixture(scope="session")
def stack() -> Iterator[FullStack]:
    with running() as started:
        yield started


@contextmanager
def running() -> Iterator[FullStack]:
    """A stack started from nothing and torn down at the end. With KEEP_STACK=1 it keeps running, and the next run uses
    it."""
    assert (BASE / "config.json").is_file(), "no tiny base: python -m examples.tiny_base"
    keep = bool(os.environ.get("KEEP_STACK"))
    secrets = FILES / "secrets"
    settings = PORTS | {
        "COMPOSE_PROJECT_NAME": "tunestream-test",
        "COMPOSE_PROFILES": "cpu",
        "SECRETS": str(secrets),
        "MODELS": str(BASE.parent),
        "TUNESTREAM_MODEL__ID": "tiny-base",
        "TUNESTREAM_MODEL__PATH": "/models/tiny-base",
    }
    if not keep:
        shutil.rmtree(FILES, ignore_errors=True)
    make("secrets", settings, timeout=60)
    told = {
        "PROMETHEUS_URL": f"http://127.0.0.1:{PORTS['PROMETHEUS_PORT']}",
        "TUNESTREAM_BASE": settings["TUNESTREAM_MODEL__ID"],
    }
    started = FullStack(parse_exports((secrets / "client.env").read_text()) | told, secrets, settings)
    try:
        if not keep:
            started.down()
        make("full", settings, timeout=2400)
        started.compose("up", "--detach", "--no-deps", "prometheus")
        yield started
    finally:
        (FILES / "log").write_text(started.compose("logs", "--no-color", "--timestamps", check=False).stdout)
        if not keep:
            make("full-down", settings | {"VOLUMES": "--volumes"}, timeout=300)


def make(target: str, settings: dict[str, str], timeout: float) -> None:
    """Call make as a user does, whatever base a `.env` names."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "NAMED_BASE=", target]
    done = subprocess.run(
        command, cwd=ROOT, env=outer | settings, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}"
