"""The embedded stack, started like `tunestream up` does it, but with a proxy on each connection, a small disk for what
the trainer and inference keep, and clocks that can be moved."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import psutil
from rich.console import Console

from cli.exports import exports
from cli.stack import leftovers, plan, run, state
from cli.stack.boot import boot
from cli.stack.display import BootView
from cli.stack.programs import RENDER, Program, programs
from cli.stack.readiness import probe_for
from cli.stack.supervisor import Supervisor
from cli.target import of_stack
from shared.events import SERVICES
from shared.settings import load_settings
from tests.chaos import links as proxies
from tests.chaos.links import Links
from tests.chaos.schedule import Fault, Targets
from tests.chaos.stack import Missed
from tests.e2e.conftest import BASE, StackUnderTest
from tests.support.fakes import faketime
from tests.support.user import ROOT

ENGINE = "services.trainer.engine"
CLOCKED = ("ingest", "validate", "trainer", "evaluator", "api")
"""The services whose clock can be moved. That of inference is left alone: vLLM and its workers would inherit it."""
DISK_MIB = 256
START_SECONDS = 600.0
LINKS = {"services-store": "s3", "broker-store": "s3", "services-broker": "kafka", "clients-gateway": "inference"}
"""Each link, and the port of the server behind it."""


@dataclass
class Embedded:
    """A running stack. `stack` knows the ports of the proxies, `behind` those of the servers."""

    user: StackUnderTest
    stack: state.Stack
    behind: state.Stack
    links: Links
    disk: Path | None
    clocks: Path

    @property
    def targets(self) -> Targets:
        parts = ("weed", "tansu", *SERVICES, "vllm", RENDER)
        return {
            "kill": (*parts, "training"),
            "stop": (*parts, "training"),
            "cut": tuple(LINKS),
            "mute": tuple(LINKS),
            "slow": tuple(LINKS),
            "clock": CLOCKED,
            "fill": ("disk",) if self.disk else (),
        }

    @property
    def logs(self) -> Path:
        return self.stack.logs

    @property
    def kafka(self) -> dict[str, Any]:
        return {"bootstrap_servers": self.stack.kafka}

    all_topics = kafka

    @property
    def store(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.behind.s3_url,
            aws_access_key_id=self.stack.access_key,
            aws_secret_access_key=self.stack.secret_key,
            region_name=self.stack.region,
        )

    def inject(self, fault: Fault) -> Callable[[], None]:
        match fault.kind:
            case "kill":
                victims = self._processes(fault.target)
                os.kill(victims[fault.number % len(victims)].pid, signal.SIGKILL)
                return lambda: None
            case "stop":
                return _stop(self._processes(fault.target))
            case "cut":
                self.links.cut(fault.target)
            case "mute":
                self.links.mute(fault.target)
            case "slow":
                self.links.slow(fault.target, fault.amount)
            case "clock":
                faketime.set_clock(self._clock(fault.target), fault.amount)
                return lambda: faketime.set_clock(self._clock(fault.target), 0)
            case "fill":
                return self._fill()
        return lambda: self.links.heal(fault.target)

    def _processes(self, target: str) -> list[psutil.Process]:
        """The processes of a target; of vLLM several.

        Raises:
            Missed: it does not run.
        """
        found: list[psutil.Process] = []
        with suppress(AssertionError, psutil.NoSuchProcess):  # who asserts that it runs
            if target == "vllm":
                found = self.user._vllm(self.user.pid("inference"))
            elif target == "training":
                children = psutil.Process(self.user.pid("trainer")).children(recursive=True)
                found = [child for child in children if ENGINE in " ".join(child.cmdline())]
            else:
                found = [psutil.Process(self.user.pid(target))]
        if not found:
            raise Missed(target)
        return found

    def _clock(self, service: str) -> Path:
        return self.clocks / service

    def _fill(self) -> Callable[[], None]:
        assert self.disk is not None
        filler = self.disk / "filler"
        with filler.open("wb") as file:
            free = os.statvfs(self.disk)
            with suppress(OSError):  # others write meanwhile
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
        return lambda: filler.unlink(missing_ok=True)

    def not_ready(self) -> list[str]:
        probes = {program.name: probe_for(program.name, self.stack) for program in programs(self.stack)}
        return [f"{name} ({why})" for name, probe in probes.items() if (why := probe())]

    def log_lines(self) -> Iterable[tuple[str, str]]:
        for path in sorted(self.logs.glob("*.log*")):
            with path.open(errors="replace") as lines:
                for line in lines:
                    yield path.name.partition(".")[0], line


def _stop(victims: list[psutil.Process]) -> Callable[[], None]:
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.suspend()

    def go_on() -> None:
        for victim in victims:
            with suppress(psutil.NoSuchProcess):  # killed meanwhile; psutil knows a pid that was used again
                victim.resume()

    return go_on


@contextmanager
def running(folder: Path, left: list[str]) -> Iterator[Embedded]:
    """Start a stack in an empty folder. Processes that are left when it was stopped are put into `left`."""
    assert (BASE / "config.json").is_file(), "no tiny base: python -m examples.tiny_base"
    settings = load_settings()
    behind = plan.make_stack(folder, ROOT, settings, None, base=str(BASE))
    with proxies.running({name: behind.ports[port] for name, port in LINKS.items()}) as links, _disk(folder) as disk:
        through = {"s3": "services-store", "kafka": "services-broker", "inference": "clients-gateway"}
        stack = behind.model_copy(
            update={"ports": behind.ports | {port: links.port(name) for port, name in through.items()}}
        )
        clocks = folder / "clocks"
        clocks.mkdir()
        for service in CLOCKED:
            faketime.set_clock(clocks / service, 0)
        parts = [_program(part, stack, behind, links, clocks) for part in programs(behind)]
        state.save(stack)
        state.make_socket_folder(stack.sockets)
        (stack.state / "data" / "s3").mkdir(parents=True)
        variables = plan.environment(stack, settings) | {
            "TUNESTREAM_INFERENCE__PORT": str(behind.ports["inference"]),
            "TUNESTREAM_TRAINER__WORK_DIR": str((disk or folder) / "trainer"),
            "TUNESTREAM_INFERENCE__ADAPTER_DIR": str((disk or folder) / "adapters"),
        }
        plan.write_environment(stack, variables)
        environment = {**plan.inherited(os.environ), **variables, plan.MARK: str(stack.state)}
        supervisor = Supervisor.launch(run.files_of(stack), parts, environment)
        user = StackUnderTest(exports(of_stack(stack, None), {}), folder)
        try:
            console = Console()
            with BootView(console, [part.name for part in parts]) as view:
                probes = {part.name: probe_for(part.name, stack) for part in parts}
                boot(supervisor, parts, probes, view, stack.logs, timeout=START_SECONDS)
            yield Embedded(user, stack, behind, links, disk, clocks)
        finally:
            supervisor_gone = run.running(folder)
            if supervisor_gone is not None:
                run.stop(supervisor_gone)
            left += [str(pid) for pid in leftovers.find(plan.absolute(folder))]
            leftovers.end(plan.absolute(folder))


def _program(part: Program, stack: state.Stack, behind: state.Stack, links: Links, clocks: Path) -> Program:
    """A program of the stack, with its server behind its proxy."""
    environment, command = dict(part.environment), part.command
    if part.name == "tansu":
        environment["AWS_ENDPOINT"] = f"http://127.0.0.1:{links.port('broker-store')}"
        at = command.index("--advertised-listener-url") + 1
        command = (*command[:at], f"tcp://{stack.kafka}", *command[at + 1 :])
    if part.name in CLOCKED:
        environment |= faketime.environment(clocks / part.name)
    return replace(part, command=command, environment=environment)


@contextmanager
def _disk(folder: Path) -> Iterator[Path | None]:
    """A disk of `DISK_MIB`; None if this user may not mount one."""
    disk = folder / "disk"
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0700", "tunestream-chaos", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield None
        return
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)
