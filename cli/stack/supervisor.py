"""Starts supervisord, and controls it through its XML-RPC interface on a unix socket."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from supervisor.xmlrpc import Faults, SupervisorTransport

from cli.stack.config import Files, render
from cli.stack.programs import Program
from cli.terminal import CliError

CONTROL_SECONDS = 10.0

StateName = Literal["STOPPED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "FATAL", "UNKNOWN"]


@dataclass(frozen=True)
class Process:
    """One program as supervisord sees it. `started`: when it was last started, in seconds since the epoch; 0: never."""

    name: str
    state: StateName
    pid: int
    started: int
    seconds: int
    """For how many seconds it has been running."""
    error: str


class Supervisor:
    """A running supervisord."""

    def __init__(self, files: Files) -> None:
        self._files = files
        transport = SupervisorTransport(None, None, f"unix://{files.socket}")
        # the host is ignored: the transport uses the socket
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        self._rpc: Any = proxy.supervisor
        self._transport = transport

    @classmethod
    def connect(cls, files: Files) -> Supervisor | None:
        """Connect to the supervisord of these files; None if it does not run."""
        if not files.socket.exists():
            return None
        supervisor = cls(files)
        try:
            supervisor._rpc.getState()
        except (OSError, http.client.HTTPException):
            supervisor.close()
            return None
        return supervisor

    @classmethod
    def launch(cls, files: Files, programs: Sequence[Program], environment: Mapping[str, str]) -> Supervisor:
        """Start supervisord in a session of its own, so that Ctrl-C of this terminal does not reach it.

        Raises:
            CliError: it did not start; the message is that of supervisord.
        """
        files.logs.mkdir(parents=True, exist_ok=True)
        files.config.write_text(render(files, programs))
        files.config.chmod(0o600)
        files.socket.unlink(missing_ok=True)  # a killed supervisord leaves the socket behind
        with files.startup_log.open("wb") as startup_log:
            child = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(files.config)],
                stdin=subprocess.DEVNULL,
                stdout=startup_log,
                stderr=startup_log,
                cwd=files.directory,
                env=dict(environment),
                start_new_session=True,
            )
        deadline = time.monotonic() + CONTROL_SECONDS
        while time.monotonic() < deadline and child.poll() is None:
            if supervisor := cls.connect(files):
                return supervisor
            time.sleep(0.05)
        child.kill()
        child.wait()
        words = files.startup_log.read_text(errors="replace").strip().splitlines()[-3:]
        raise CliError(f"supervisord did not start: {' '.join(words) or 'it said nothing'}", f"see {files.logs}")

    def close(self) -> None:
        self._transport.close()

    @property
    def pid(self) -> int:
        return cast(int, self._call("getPID"))

    def processes(self) -> dict[str, Process]:
        """All programs by name, running or not."""
        found: Any = self._call("getAllProcessInfo")
        return {
            item["name"]: Process(
                name=item["name"],
                state=item["statename"],
                pid=item["pid"],
                started=item["start"],
                seconds=max(0, item["now"] - item["start"]) if item["pid"] else 0,
                error=item["spawnerr"],
            )
            for item in found
        }

    def start(self, name: str) -> None:
        """Ask supervisord to start a program, and return at once. A program that runs already is left alone."""
        self._call_unless("startProcess", name, Faults.ALREADY_STARTED)

    def stop(self, name: str) -> None:
        """Ask supervisord to stop a program, and return at once."""
        self._call_unless("stopProcess", name, Faults.NOT_RUNNING)

    def shutdown(self) -> None:
        """End supervisord and the programs that still run. Returns when it is gone, or after `CONTROL_SECONDS`."""
        pid = self.pid
        self._call("shutdown")
        self.close()
        deadline = time.monotonic() + CONTROL_SECONDS
        while exists(pid) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _call_unless(self, method: str, name: str, fault: int) -> None:
        try:
            self._call(method, name, False)  # wait=False
        except xmlrpc.client.Fault as error:
            if error.faultCode != fault:
                raise CliError(f"supervisord: {error.faultString}", f"see {self._files.logs}") from None

    def _call(self, method: str, *args: object) -> Any:
        try:
            return getattr(self._rpc, method)(*args)
        except (OSError, http.client.HTTPException) as error:
            self._transport.close()
            raise SupervisorGone(
                f"supervisord does not answer any more ({type(error).__name__})", "`tunestream up` repairs the stack"
            ) from None


class SupervisorGone(CliError):
    """supervisord was stopped or killed during a call."""


def exists(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # if the process is our child, it would stay a zombie
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except FileNotFoundError:  # it has just ended, or this system has no /proc
        return not Path("/proc/self").exists()
    return status.rpartition(")")[2].split()[0] != "Z"
