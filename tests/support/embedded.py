"""The broker and the object store of the embedded stack, which a test can kill and restart; and the api service over
them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from cli.stack.plan import make_stack
from cli.stack.ports import USUAL, choose
from cli.stack.programs import parts_environment, programs
from cli.stack.state import Stack, make_socket_folder
from shared.errors import TunestreamError
from shared.kafka.topics import create_topics
from shared.settings import Settings
from shared.store.objects import ObjectStore
from tests.support.broker import KafkaBroker
from tests.support.environment import without_settings
from tests.support.fakes.servers import unused_port
from tests.support.waiting import eventually

WORKERS = 4
"""Of pytest-xdist that never choose the same ports."""


class Embedded:
    """The object store (`weed`) and the broker (`tansu`), in a directory and on ports of their own."""

    def __init__(self, folder: Path) -> None:
        # far from the usual ones, and each worker of pytest-xdist has ranges of its own: two that choose at the same
        # moment would both find the same ports free
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
        shift = 1_000 + (random.randrange(60 // WORKERS) * WORKERS + worker) * 50
        self.stack: Stack = make_stack(folder, folder, Settings(), None)
        self.stack.ports = choose({name: port + shift for name, port in USUAL.items()})
        (folder / "data" / "s3").mkdir(parents=True)
        self.stack.logs.mkdir()
        make_socket_folder(self.stack.sockets)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(
            {
                "store": {
                    "endpoint": self.stack.s3_url,
                    "access_key": self.stack.access_key,
                    "secret_key": self.stack.secret_key,
                },
                "bus": {
                    "bootstrap": self.stack.kafka,
                    "idempotent": False,
                    "fetch_max_wait_ms": 50,
                    "retry_pause_seconds": 0.2,
                    "session_timeout_ms": 2_000,
                },
            }
        )

    @property
    def objects(self) -> ObjectStore:
        return ObjectStore.connect(self.settings.store)

    @property
    def broker(self) -> KafkaBroker:
        return KafkaBroker(self.settings.bus)

    def start(self, name: str) -> None:
        program = next(program for program in programs(self.stack) if program.name == name)
        log = (self.stack.logs / f"{name}.log").open("ab")
        self._running[name] = subprocess.Popen(
            program.command,
            env={**os.environ, **parts_environment(self.stack), **program.environment},
            stdout=log,
            stderr=log,
            cwd=self.stack.state,
            start_new_session=True,
        )
        log.close()

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        process = self._running.pop(name)
        os.killpg(process.pid, number)
        process.wait(30)

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a program, such as SIGSTOP, after which it stands still."""
        os.killpg(self._running[name].pid, number)

    async def topic(self, name: str, partitions: int) -> None:
        """Create a topic of our own."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.stack.kafka)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(name=name, num_partitions=partitions, replication_factor=1)])
        finally:
            await admin.close()

    async def ready(self) -> None:
        """Wait for the buckets, and create every topic."""
        for bucket in (self.stack.datasets_bucket, self.stack.system_bucket):
            await eventually(partial(self.objects.at(bucket).list, ""), TunestreamError)
        if "tansu" in self._running:
            host, port = self.stack.kafka.split(":")
            await eventually(lambda: asyncio.to_thread(socket.create_connection((host, int(port)), 1).close), OSError)
            await eventually(lambda: create_topics(self.settings.bus), Exception)

    def stop(self) -> None:
        for name in reversed(list(self._running)):
            self.kill(name, signal.SIGTERM)


@contextmanager
def embedded(folder: Path, *names: str) -> Iterator[Embedded]:
    parts = Embedded(folder)
    try:
        for name in names or ("weed", "tansu"):
            parts.start(name)
            asyncio.run(parts.ready())
        yield parts
    finally:
        parts.stop()


@dataclass(frozen=True)
class ApiProcess:
    """A running api service, at `url`."""

    url: str
    pid: int

    def memory(self, what: str = "VmHWM") -> int:
        """Bytes of its resident memory: the most that it ever had, or with `VmRSS` what it has now."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


@asynccontextmanager
async def api_process(parts: Embedded, folder: Path) -> AsyncIterator[ApiProcess]:
    """Start one, with its database and its log in `folder`, and stop it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    port, settings = unused_port(), parts.settings
    environment = {
        **without_settings(os.environ),
        "TUNESTREAM_STORE__ENDPOINT": settings.store.endpoint,
        "TUNESTREAM_STORE__ACCESS_KEY": settings.store.access_key,
        "TUNESTREAM_STORE__SECRET_KEY": settings.store.secret_key.get_secret_value(),
        "TUNESTREAM_BUS__BOOTSTRAP": settings.bus.bootstrap,
        "TUNESTREAM_BUS__IDEMPOTENT": "false",
        "TUNESTREAM_API__PORT": str(port),
        "TUNESTREAM_API__DATABASE": str(folder / "api.sqlite3"),
    }
    url = f"http://127.0.0.1:{port}"

    async def ready() -> None:
        async with httpx.AsyncClient() as client:
            (await client.get(f"{url}/health/ready")).raise_for_status()

    with (folder / "api.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.api"), env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        await eventually(ready, httpx.HTTPError, 60.0)
        yield ApiProcess(url, process.pid)
    finally:
        process.terminate()
        await process.wait()
