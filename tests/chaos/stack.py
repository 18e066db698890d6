"""What a run needs of a stack, embedded or in containers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from tests.chaos.schedule import Fault, Targets
from tests.support.user import User


class Missed(Exception):
    """There is nothing to hit: the process does not run just now."""


class Stack(Protocol):
    """A running stack that can be broken."""

    @property
    def user(self) -> User:
        """A user, whose connections go through the links of the stack."""
        ...

    @property
    def targets(self) -> Targets: ...

    @property
    def logs(self) -> Path:
        """Where the logs are."""
        ...

    @property
    def kafka(self) -> dict[str, Any]:
        """The arguments of aiokafka's clients for a stranger who may send datasets."""
        ...

    @property
    def all_topics(self) -> dict[str, Any]:
        """The arguments of aiokafka's clients for who may read every topic."""
        ...

    @property
    def store(self) -> Any:
        """An S3 client that may read everything, and that no link is before."""
        ...

    def inject(self, fault: Fault) -> Callable[[], None]:
        """Begin a fault; returns what ends it.

        Raises:
            Missed: there is nothing to hit.
        """
        ...

    def not_ready(self) -> list[str]:
        """The parts that are not ready."""
        ...

    def log_lines(self) -> Iterable[tuple[str, str]]:
        """The name of a part, and a line of its log; all lines."""
        ...
