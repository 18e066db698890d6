"""The configuration file of supervisord, and the paths of its files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.stack.programs import Program
from cli.terminal import CliError

# supervisord waits one second longer before each retry, so this many are enough for an outage of hours
START_RETRIES = 200


@dataclass(frozen=True)
class Files:
    """The files of one supervisord. `directory` is where its programs run."""

    config: Path
    socket: Path
    logs: Path
    directory: Path

    @property
    def pid(self) -> Path:
        return self.logs / "supervisord.pid"

    @property
    def startup_log(self) -> Path:
        return self.logs / "supervisord.err"


def render(files: Files, programs: Sequence[Program]) -> str:
    """The text of the configuration file. No program starts by itself: `up` starts the waves in order."""
    sections: dict[str, dict[str, object]] = {
        "unix_http_server": {"file": files.socket, "chmod": "0700"},
        "supervisord": {
            "nodaemon": "true",
            "silent": "true",
            "directory": files.directory,
            "pidfile": files.pid,
            "logfile": files.logs / "supervisord.log",
            "logfile_maxbytes": "5MB",
            "logfile_backups": 1,
            "childlogdir": files.logs,
        },
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
    }
    for program in programs:
        sections[f"program:{program.name}"] = {
            "command": shlex.join(program.command),
            "environment": _environment(program),
            "autostart": "false",
            "autorestart": "true",
            "startsecs": program.start_seconds,
            "startretries": START_RETRIES,
            "stopsignal": "TERM",
            "stopwaitsecs": program.stop_seconds,
            "stopasgroup": "true",
            "killasgroup": "true",
            "priority": program.wave,
            "redirect_stderr": "true",
            "stdout_logfile": log_file(files.logs, program.name),
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": 3,
        }
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in options.items() if value != "")
        for name, options in sections.items()
    )


def _environment(program: Program) -> str:
    for name, value in program.environment.items():
        if any(mark in value for mark in "'\"%\n"):  # this file has no way to escape a quote
            raise CliError(
                f"{name} of {program.name} holds a quote or a percent sign",
                "choose another value for the embedded stack",
            )
    return ",".join(f'{name}="{value}"' for name, value in program.environment.items())


def _value(value: object) -> str:
    text = str(value)
    # supervisord expands %, twice in names of log files; the other two begin a comment
    if any(mark in text for mark in ("\n", "%", " ;", " #")):
        raise CliError(f"supervisord cannot take {text!r}", "choose a --state directory without %, ; and # in its name")
    return text


def log_file(logs: Path, name: str) -> Path:
    return logs / f"{name}.log"
