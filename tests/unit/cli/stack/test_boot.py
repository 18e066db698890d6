"""The start of the embedded stack: which programs it waits for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cli.stack.boot import boot
from cli.stack.programs import Program
from cli.stack.supervisor import Process


class Running:
    """A supervisord whose programs all run at once."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def start(self, name: str) -> None:
        self.started.append(name)

    def processes(self) -> dict[str, Process]:
        return {name: Process(name, "RUNNING", 1, 0, 1, "") for name in self.started}


class Seen:
    """What the user saw last of each program."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}

    def update(self, name: str, state: str, note: str = "") -> None:
        self.states[name] = state


def program(name: str, **fields: Any) -> Program:
    return Program(name, ("true",), wave=0, start_seconds=1, stop_seconds=1, **fields)


def test_a_program_that_is_not_awaited_is_started_and_does_not_delay_the_others() -> None:
    supervisor, seen = Running(), Seen()
    answers = iter(["not yet", None])
    boot(
        supervisor,  # type: ignore[arg-type]
        [program("validate"), program("render", awaited=False)],
        {"validate": lambda: next(answers), "render": lambda: "does not answer yet"},
        seen,
        Path(),
        timeout=10,
        sleep=lambda seconds: None,
    )
    assert supervisor.started == ["validate", "render"]
    assert seen.states == {"validate": "ready", "render": "starting"}
