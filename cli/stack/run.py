"""Starts and stops an embedded stack, and watches its processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cli.stack import leftovers, plan, state
from cli.stack.boot import boot
from cli.stack.config import Files
from cli.stack.display import BootView
from cli.stack.plan import absolute
from cli.stack.programs import Program, programs
from cli.stack.readiness import probe_for
from cli.stack.state import Stack
from cli.stack.supervisor import Process, Supervisor, SupervisorGone
from cli.terminal import CliError
from shared.settings import Settings, load_settings

STOP_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class UpOptions:
    """The flags of `up`."""

    base: str | None = None
    base_id: str | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Running:
    """A stack and the supervisord that runs it."""

    stack: Stack
    supervisor: Supervisor


def files_of(stack: Stack) -> Files:
    """The files of a stack's supervisord."""
    return Files(
        config=stack.state / "supervisord.conf", socket=stack.control, logs=stack.logs, directory=stack.directory
    )


def running(folder: Path) -> Running | None:
    """The running stack of a state directory; None if it does not run."""
    stack = state.load(absolute(folder))
    supervisor = Supervisor.connect(files_of(stack)) if stack else None
    return Running(stack, supervisor) if stack and supervisor else None


def up(folder: Path, options: UpOptions, console: Console, timeout: float) -> Running:
    """Start the stack, or start the parts of a running stack that are down. Returns when every part is ready.

    Raises:
        NotReady: a part did not become ready. A stack that ran before goes on; a stack that this call started is ended.
        CliError: anything else that the user can fix.
    """
    folder = absolute(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if found := running(folder):
            _check_base(found.stack, options)
            parts = programs(found.stack)
            _boot(found, parts, console, timeout)
            return found
        if ended := leftovers.end(folder):
            console.print(f"ended {ended} processes that a crash had left behind")
        settings = load_settings()
        stack = plan.make_stack(
            folder,
            Path.cwd(),
            settings,
            state.load(folder),
            base=options.base,
            base_id=options.base_id,
            without=options.without,
        )
        new = _launch(stack, settings)
        try:
            _boot(new, programs(stack), console, timeout)
        except BaseException:
            console.print("stopping what was started …")
            stop(new)
            raise
        return new


def _check_base(stack: Stack, options: UpOptions) -> None:
    """Raise CliError if the flags name another base: a running stack cannot change it."""
    asked = plan.base_of(load_settings(), stack, options.base, options.base_id)
    if options.base is not None and asked != (stack.base, stack.base_path):
        where = f" ({stack.base_path})" if stack.base_path else ""
        raise CliError(
            f"the stack of {stack.state} runs with the base {stack.base}{where}",
            "`tunestream down`, then `up` with another",
        )


def _launch(stack: Stack, settings: Settings) -> Running:
    state.save(stack)
    state.make_socket_folder(stack.sockets)
    (stack.state / "data" / "s3").mkdir(parents=True, exist_ok=True)
    variables = plan.environment(stack, settings)
    plan.write_environment(stack, variables)
    environment = {
        **plan.inherited(os.environ),
        **variables,
        plan.MARK: str(stack.state),
    }
    return Running(stack, Supervisor.launch(files_of(stack), programs(stack), environment))


def _boot(found: Running, parts: Sequence[Program], console: Console, timeout: float) -> None:
    probes = {program.name: probe_for(program.name, found.stack) for program in parts}
    with BootView(console, [program.name for program in parts]) as view:
        boot(found.supervisor, parts, probes, view, found.stack.logs, timeout=timeout)


def down(folder: Path) -> int:
    """End every process of the stack. Returns how many there were; it is no error if there were none."""
    folder = absolute(folder)
    if not folder.is_dir():
        return 0
    count = 0
    with _locked(folder):
        if found := running(folder):
            count = sum(process.pid != 0 for process in found.supervisor.processes().values()) + 1
            stop(found)
        return count + leftovers.end(folder)


def stop(found: Running) -> None:
    """End the services, then the broker, then the store, then supervisord, then processes that it does not know."""
    waves: dict[int, list[str]] = {}
    for program in programs(found.stack):
        waves.setdefault(program.wave, []).append(program.name)
    with contextlib.suppress(SupervisorGone):
        for wave in sorted(waves, reverse=True):
            stop_all(found.supervisor, waves[wave])
        found.supervisor.shutdown()
    leftovers.end(found.stack.state)
    for socket in found.stack.sockets.glob("*.sock"):  # weed leaves a process behind
        socket.unlink(missing_ok=True)
    if found.stack.sockets != found.stack.state:
        found.stack.sockets.rmdir()


def stop_all(supervisor: Supervisor, names: Sequence[str]) -> None:
    """Stop the programs `names` at the same time. supervisord kills those that take too long."""
    known = supervisor.processes()
    for name in names:
        if name in known:
            supervisor.stop(name)
    while any(known[name].pid for name in names if name in known):
        time.sleep(STOP_POLL_SECONDS)
        known = supervisor.processes()


def changes(found: Running, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Yield a sentence whenever a process of a running stack ends or starts, until supervisord ends."""
    before: Mapping[str, Process] = found.supervisor.processes()
    while True:
        sleep(1.0)
        try:
            now = found.supervisor.processes()
        except SupervisorGone:
            return
        for name, process in now.items():
            last = before.get(name)
            if last and last.state != process.state and process.state in ("BACKOFF", "FATAL", "EXITED"):
                yield f"{name} ended: {process.error or process.state.lower()}"
            elif last and process.pid and last.pid != process.pid:
                yield f"{name} was started again (process {process.pid})"
        before = now


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let only one `up` or `down` work on a state directory at a time. The lock ends with the process that holds it."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CliError(f"another `tunestream up` or `down` works on {folder}", "wait for it to end") from None
        yield
