"""The broker and the object store of the embedded stack, without the services. A test can kill and restart them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

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
from tests.support.waiting import eventually


class Embedded:
    """The object store (`weed`) and the broker (`tansu`), in a directory and on ports of their own."""

    def __init__(self, folder: Path) -> None:
        # random ports, far from the usual ones, because workers of pytest-xdist choose theirs at the same moment
        shift = 1_000 + random.randrange(60) * 50
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
