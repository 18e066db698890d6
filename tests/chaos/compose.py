"""The full stack in containers. It has no proxies, so connections are not slowed or muted; clocks and disks are left
alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.events import SERVICES
from tests.chaos.schedule import Fault, Targets
from tests.chaos.stack import Missed
from tests.full import conftest
from tests.full.conftest import FILES, FullStack

PARTS = ("minio", "kafka", *SERVICES, "vllm", "render")
ONCE = {"init"}
"""Containers that end when they have done their work."""


@dataclass
class Compose:
    """A running stack."""

    user: FullStack

    @property
    def targets(self) -> Targets:
        return {"kill": PARTS, "stop": PARTS, "cut": PARTS}

    @property
    def logs(self) -> Path:
        return FILES / "log"

    @property
    def kafka(self) -> dict[str, Any]:
        return self.user.kafka_of("stranger")

    @property
    def all_topics(self) -> dict[str, Any]:
        return self.user.kafka_of("operator")

    @property
    def store(self) -> Any:
        return self.user.s3_of("admin")

    def inject(self, fault: Fault) -> Callable[[], None]:
        part = fault.target
        if not self.user.inspect(part)["State"]["Running"]:
            raise Missed(part)
        match fault.kind:
            case "kill":
                self.user.kill(part)
                return lambda: self.user.start_alone(part)  # what it needs may be broken, too
            case "stop":
                # freezes every process of a container; SIGSTOP would reach only its first, which is no part of ours
                self.user.compose("pause", part)
                return lambda: _ignored(self.user.compose("unpause", part, check=False))
            case "cut":
                return self._cut(part)
            case _:
                raise Missed(str(fault))

    def _cut(self, part: str) -> Callable[[], None]:
        """Take a container out of all its networks. The containers that it talked to get no word of it."""
        found = self.user.inspect(part)
        container, networks = found["Id"], found["NetworkSettings"]["Networks"]
        for network in networks:
            _docker("network", "disconnect", "--force", network, container)

        def connect() -> None:
            for network, how in networks.items():
                aliases = [f"--alias={alias}" for alias in how["Aliases"] or ()]
                _docker("network", "connect", *aliases, network, container)

        return connect

    def not_ready(self) -> list[str]:
        lines = self.user.compose("ps", "--all", "--format", "json").stdout.splitlines()
        parts = [part for part in map(json.loads, lines) if part["Service"] not in ONCE]
        return [
            f"{part['Service']} ({part['State']} {part['Health']})"
            for part in parts
            if part["State"] != "running" or part["Health"] not in ("", "healthy")
        ]

    def log_lines(self) -> Iterable[tuple[str, str]]:
        for part in PARTS:
            for line in self.user.compose("logs", "--no-color", "--no-log-prefix", part).stdout.splitlines():
                yield part, line


def _docker(*arguments: str) -> None:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"


def _ignored(_: object) -> None:
    return


@contextmanager
def running(folder: Path, left: list[str]) -> Iterator[Compose]:
    """Start the full stack from nothing, and remove it afterwards. Containers that are left are put into `left`."""
    with conftest.running() as stack:
        yield Compose(stack)
    left += stack.compose("ps", "--all", "--quiet", check=False).stdout.split()
