"""The embedded stack as a user starts it, with the real broker, S3 server and vLLM, on the tiny base."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.stack import leftovers, run
from cli.stack.plan import absolute
from tests.support.user import ROOT, User, parse_exports

BASE = ROOT / ".cache" / "tiny-base"


@dataclass
class StackUnderTest(User):
    """A running embedded stack: its command, and its processes for tests that kill them."""

    state: Path

    def tunestream(self, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli", *arguments, "--state", str(self.state)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    # --- the processes -----------------------------------------------------------------------------------------

    def pid(self, program: str) -> int:
        found = run.running(self.state)
        assert found is not None, "the stack runs"
        pid = found.supervisor.processes()[program].pid
        assert pid, f"{program} runs"
        return pid

    def kill(self, program: str) -> None:
        """Kill a process as the kernel does when memory runs out, without warning."""
        os.kill(self.pid(program), signal.SIGKILL)

    def memory(self, program: str) -> int:
        return psutil.Process(self.pid(program)).memory_info().rss

    def processes(self) -> list[Any]:
        return leftovers.find(absolute(self.state))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    assert (BASE / "config.json").is_file(), "no tiny base: python -m examples.tiny_base"
    started = StackUnderTest({}, tmp_path_factory.mktemp("stack"))
    try:
        started.tunestream("up", "--detach", "--base", str(BASE), timeout=600)
        started.env = parse_exports(started.tunestream("env").stdout)
        yield started
    finally:
        started.tunestream("down", timeout=180)
        left = started.processes()
        assert not left, f"down left processes: {left}"


def environment(stack: StackUnderTest) -> Mapping[str, str]:
    """The environment of a stranger's shell after `eval "$(tunestream env)"`."""
    return {**os.environ, **stack.env}
