"""The configuration file, and a real supervisord with two small programs."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from cli.stack import leftovers, run
from cli.stack.boot import NotReady, State, boot
from cli.stack.config import Files, render
from cli.stack.plan import MARK
from cli.stack.programs import Program
from cli.stack.supervisor import Supervisor, exists
from cli.terminal import CliError
from tests.support.fakes.servers import unused_port

SERVER = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[2], "w").write(f"{os.getpid()} {child.pid}")
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
"""


class Recorder:
    """A view that remembers."""

    def __init__(self) -> None:
        self.states: list[tuple[str, State]] = []

    def update(self, name: str, state: State, note: str = "") -> None:
        if (name, state) not in self.states:
            self.states.append((name, state))


class Dummies:
    """Two programs of two waves, whose children hide in sessions of their own, as vLLM's do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = Files(
            config=folder / "supervisord.conf", socket=folder / "s.sock", logs=folder / "logs", directory=folder
        )
        self.files.logs.mkdir()
        self.ports = {"first": unused_port(), "second": unused_port()}
        self.programs = [self.program("first", 0), self.program("second", 1)]

    def program(self, name: str, wave: int) -> Program:
        command = (sys.executable, "-c", SERVER, str(self.ports[name]), str(self.folder / f"{name}.pids"))
        script = self.folder / f"{name}.py"
        script.write_text(SERVER)
        return Program(name, (sys.executable, str(script), *command[3:]), wave, start_seconds=1, stop_seconds=5)

    def launch(self) -> Supervisor:
        return Supervisor.launch(self.files, self.programs, {**os.environ, MARK: str(self.folder)})

    def probe(self, name: str) -> str | None:
        pids = self.folder / f"{name}.pids"
        return None if pids.exists() and pids.read_text() else "not yet"

    def boot(self, supervisor: Supervisor, timeout: float = 20) -> Recorder:
        view = Recorder()
        probes = {name: lambda name=name: self.probe(name) for name in self.ports}
        boot(supervisor, self.programs, probes, view, self.files.logs, timeout=timeout)
        return view


@pytest.fixture
def dummies(tmp_path: Path) -> Iterator[Dummies]:
    folder = tmp_path / "s"
    folder.mkdir()
    yield Dummies(folder)
    for pid in leftovers.find(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_the_configuration_is_what_supervisord_reads(tmp_path: Path) -> None:
    state = tmp_path / "ours, (it's)"
    state.mkdir()
    files = Files(config=state / "conf", socket=tmp_path / "s.sock", logs=state, directory=state)
    command = ("/bin/weed", f"-dir={state}", "a'b", 'c"d')
    program = Program("weed", command, 0, 2, 20, {"TUNESTREAM_HEALTH__PORT": "8101"})
    files.config.write_text(render(files, [program]))
    options = ServerOptions()
    options.realize(["-c", str(files.config)])
    (group,) = options.process_group_configs
    (read,) = group.process_configs
    assert tuple(shlex.split(read.command)) == command
    assert read.environment == {"TUNESTREAM_HEALTH__PORT": "8101"}
    assert (read.startsecs, read.stopwaitsecs, read.stopasgroup, read.killasgroup) == (2, 20, True, True)
    assert read.autostart is False
    assert options.configroot.supervisord.directory == str(state)


@pytest.mark.parametrize("name", ["a #b", "a ;b", "100%"])
def test_a_path_that_supervisord_would_not_understand_is_refused(tmp_path: Path, name: str) -> None:
    files = Files(tmp_path / name, tmp_path / name / "s", tmp_path, tmp_path)
    with pytest.raises(CliError, match="supervisord cannot take"):
        render(files, [])


def test_a_secret_that_cannot_be_written_down_is_refused_and_not_shown(tmp_path: Path) -> None:
    files = Files(tmp_path / "conf", tmp_path / "s", tmp_path, tmp_path)
    with pytest.raises(CliError, match="AWS_SECRET_ACCESS_KEY of weed") as caught:
        render(files, [Program("weed", ("weed",), 0, 1, 1, {"AWS_SECRET_ACCESS_KEY": 'tell"nobody'})])
    assert "nobody" not in caught.value.message


def test_waves_start_in_order_and_a_killed_program_is_started_again(dummies: Dummies) -> None:
    supervisor = dummies.launch()
    view = dummies.boot(supervisor)
    assert view.states == [
        ("first", "starting"),
        ("first", "ready"),
        ("second", "starting"),
        ("second", "ready"),
    ]
    # only what ran for its `start_seconds` is started again at once
    until(lambda: supervisor.processes()["second"].state == "RUNNING")
    before = supervisor.processes()["second"].pid
    os.kill(before, signal.SIGKILL)
    until(lambda: supervisor.processes()["second"].pid not in (0, before))
    supervisor.shutdown()


def test_stopping_leaves_no_process_not_even_hidden_ones(dummies: Dummies) -> None:
    supervisor = dummies.launch()
    dummies.boot(supervisor)
    hidden = [int(pid) for name in dummies.ports for pid in (dummies.folder / f"{name}.pids").read_text().split()]
    assert len(hidden) == 4
    assert all(exists(pid) for pid in hidden)
    run.stop_all(supervisor, list(dummies.ports))
    supervisor.shutdown()
    leftovers.end(dummies.folder)
    assert not any(exists(pid) for pid in hidden)
    assert leftovers.find(dummies.folder) == []
    assert Supervisor.connect(dummies.files) is None


def test_a_process_that_is_about_to_end_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # an ending process has lost its environment before its ports are free; this one only takes longer
    slow = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); print(flush=True); time.sleep(0.5)"
    with subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        seen = iter([[process.pid]])
        monkeypatch.setattr(leftovers, "find", lambda state: next(seen, []))
        assert leftovers.end(tmp_path) == 1
        assert not exists(process.pid)


def test_after_a_killed_supervisord_its_orphans_are_found_and_ended(dummies: Dummies) -> None:
    supervisor = dummies.launch()
    dummies.boot(supervisor)
    pid = supervisor.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not exists(pid))
    assert dummies.files.socket.exists(), "the stale socket is what a crash leaves"
    assert Supervisor.connect(dummies.files) is None
    assert len(leftovers.find(dummies.folder)) == 4
    assert leftovers.end(dummies.folder) == 4
    assert leftovers.find(dummies.folder) == []
    again = dummies.launch()
    dummies.boot(again)
    again.shutdown()


def test_a_program_that_cannot_start_is_named_with_its_last_log_line_and_a_remedy(dummies: Dummies) -> None:
    script = dummies.folder / "broken.py"
    script.write_text("import sys; sys.exit('wrong settings: TUNESTREAM_BUS__PARTITIONS: must be a number')")
    dummies.programs = [Program("broken", (sys.executable, str(script)), 0, start_seconds=1, stop_seconds=1)]
    dummies.ports = {"broken": 0}
    supervisor = dummies.launch()
    with pytest.raises(NotReady) as caught:
        dummies.boot(supervisor)
    supervisor.shutdown()
    assert caught.value.program == "broken"
    assert caught.value.tail[-1] == "wrong settings: TUNESTREAM_BUS__PARTITIONS: must be a number"
    assert "correct the variable" in caught.value.remedy


def test_a_program_that_is_never_ready_ends_the_wait(dummies: Dummies) -> None:
    supervisor = dummies.launch()
    dummies.programs = dummies.programs[:1]
    with pytest.raises(NotReady, match="still loading; 0 s were not enough"):
        boot(
            supervisor, dummies.programs, {"first": lambda: "still loading"}, Recorder(), dummies.files.logs, timeout=0
        )
    until(lambda: dummies.probe("first") is None)
    supervisor.shutdown()


def test_supervisord_that_does_not_start_says_why(dummies: Dummies) -> None:
    with pytest.raises(CliError, match=r"supervisord did not start: .*'soon' in section 'program:odd'"):
        Supervisor.launch(
            dummies.files,
            [Program("odd", ("true",), 0, start_seconds="soon", stop_seconds=1)],  # type: ignore[arg-type]
            os.environ,
        )
