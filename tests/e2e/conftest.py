"""The embedded stack as a user starts it, with the real broker, S3 server and vLLM, on the tiny base."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cli.stack import leftovers, run
from cli.stack.plan import absolute
from shared.events import SERVICES
from tests.support.user import HTTP, ROOT, User, parse_exports

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
        pid = self._running.supervisor.processes()[program].pid
        assert pid, f"{program} runs"
        return pid

    def kill(self, program: str) -> None:
        """Kill a process as the kernel does when memory runs out, without warning."""
        os.kill(self.pid(program), signal.SIGKILL)

    @contextmanager
    def away(self, part: str) -> Iterator[None]:
        """Stop a program, or `vllm`, as a network does that loses every packet: it takes connections and answers
        nothing."""
        inference = psutil.Process(self.pid("inference"))
        stopped = self._vllm(inference.pid) if part == "vllm" else [psutil.Process(self.pid(part))]
        assert stopped, f"{part} runs"
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                with suppress(psutil.NoSuchProcess):  # inference may have ended a vLLM that does not answer
                    process.resume()

    @contextmanager
    def without(self, program: str) -> Iterator[None]:
        """Let the supervisor stop a program, and start it again after the body."""
        supervisor = self._running.supervisor
        supervisor.stop(program)
        _until(lambda: not supervisor.processes()[program].pid, f"{program} ends")
        try:
            yield
        finally:
            supervisor.start(program)
            _until(lambda: self.health(program) == 200, f"{program} is ready again")

    @contextmanager
    def watching(self, job_id: str) -> Iterator[Callable[[], str]]:
        """Run `tunestream watch` beside the body, which can read what it has printed so far."""
        command = [sys.executable, "-m", "cli", "watch", job_id, "--state", str(self.state)]
        printed = self.state / f"watch-{job_id}.log"
        with printed.open("wb") as file:
            watch = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield printed.read_text
        finally:
            watch.terminate()
            watch.wait(30)

    def services(self) -> list[str]:
        return [name for name in SERVICES if name in self._running.supervisor.processes()]

    def starts(self) -> dict[str, tuple[int, ...]]:
        """The process ids of all programs, and of the vLLM servers below inference. They change with every restart."""
        programs = self._running.supervisor.processes()
        servers = self._vllm(programs["inference"].pid)
        return {name: (program.pid,) for name, program in programs.items()} | {
            "vllm": tuple(sorted(server.pid for server in servers))
        }

    @staticmethod
    def _vllm(inference: int) -> list[psutil.Process]:
        """The processes of the vLLM server: its command, and those that it has named `VLLM::…`."""
        children = psutil.Process(inference).children(recursive=True)
        commands = {child: " ".join(child.cmdline()) for child in children}
        return [child for child, said in commands.items() if " vllm.entrypoints" in said or said.startswith("VLLM::")]

    def health(self, service: str) -> int:
        """The status of a service's readiness; 0 if nothing listens."""
        try:
            return HTTP.get(f"{self._address(service)}/health/ready").status_code
        except httpx.ConnectError:
            return 0

    def lag(self, service: str) -> float:
        """How many messages the service has not consumed yet."""
        port = self._running.stack.metrics_port(service)
        metrics = HTTP.get(f"http://127.0.0.1:{port}/metrics").text
        return sum(
            float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("tunestream_consumer_lag{")
        )

    def _address(self, service: str) -> str:
        return f"http://127.0.0.1:{self._running.stack.ports[service]}"

    @property
    def _running(self) -> run.Running:
        found = run.running(self.state)
        assert found is not None, "the stack runs"
        return found

    def memory(self, program: str) -> int:
        return psutil.Process(self.pid(program)).memory_info().rss

    def processes(self) -> list[Any]:
        return leftovers.find(absolute(self.state))


def _until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


@contextmanager
def running_stack(state: Path, *options: str) -> Iterator[StackUnderTest]:
    """A stack with its data in the folder `state`. `options`: further ones of `tunestream up`."""
    assert (BASE / "config.json").is_file(), "no tiny base: python -m examples.tiny_base"
    started = StackUnderTest({}, state)
    try:
        started.tunestream("up", "--detach", "--base", str(BASE), *options, timeout=600)
        started.env = parse_exports(started.tunestream("env").stdout)
        yield started
    finally:
        started.tunestream("down", timeout=180)
        left = started.processes()
        assert not left, f"down left processes: {left}"


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    """One for all modules. A module whose jobs take long has a function `begin(stack)` that asks for them at once, so
    that one is trained while another is evaluated."""
    modules = {item.module: None for item in request.session.items if isinstance(item, pytest.Function)}
    with running_stack(tmp_path_factory.mktemp("stack")) as started:
        for module in modules:
            if begin := getattr(module, "begin", None):
                begin(started)
        yield started


def environment(stack: StackUnderTest) -> Mapping[str, str]:
    """The environment of a stranger's shell after `eval "$(tunestream env)"`."""
    return {**os.environ, **stack.env}
