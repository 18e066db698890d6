"""The supervised server: started, watched, started again, and never outliving this service. Real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
import pytest

from services.inference.errors import VllmAsleep, VllmUnavailable
from services.inference.vllm import child, guard
from services.inference.vllm.child import SupervisedVllm
from services.inference.vllm.command import command_line, environment, socket_folder
from shared.errors import ConfigError
from shared.retry import Backoff
from shared.settings import Settings
from tests.support.waiting import until

# A server with /health and /v1/models, and with a child process, as vLLM has its engine.
SERVER = """
import http.server, json, pathlib, subprocess, sys
engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[2]).write_text(str(engine.pid))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": "base", "parent": None}]}).encode())
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "BACKOFF", Backoff(0.01, child.BACKOFF.longest))


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as opened:
        yield opened


@pytest.fixture
async def vllm(client: httpx.AsyncClient, tmp_path: Path) -> AsyncIterator[SupervisedVllm]:
    def command(port: int) -> list[str]:
        return [sys.executable, "-c", SERVER, str(port), str(tmp_path / "engine.pid")]

    supervised = SupervisedVllm(client, command, os.environ, "base", start_timeout=20)
    running = asyncio.create_task(supervised.run())
    try:
        await supervised.wait_ready(20)
        yield supervised
    finally:
        running.cancel()
        await supervised.close()


def family(vllm: SupervisedVllm) -> list[psutil.Process]:
    """Guard, server and engine."""
    assert vllm.pid is not None
    leader = psutil.Process(vllm.pid)
    return [leader, *leader.children(recursive=True)]


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


async def test_closing_leaves_no_process(vllm: SupervisedVllm) -> None:
    processes = family(vllm)
    assert len(processes) == 3

    await vllm.close()

    await until(lambda: gone(processes), "no process is left")
    assert not vllm.ready


async def test_a_server_that_is_killed_is_started_again_and_its_engine_is_not_left(vllm: SupervisedVllm) -> None:
    processes, generation = family(vllm), vllm.generation

    processes[1].kill()

    await until(lambda: vllm.generation > generation, "the server is started again")
    await vllm.wait_ready(20)
    await until(lambda: gone(processes), "no process is left")
    assert await vllm.healthy()


async def test_a_guard_that_is_killed_takes_the_server_along(vllm: SupervisedVllm) -> None:
    processes, generation = family(vllm), vllm.generation

    processes[0].kill()

    await until(lambda: gone(processes), "no process is left")
    await until(lambda: vllm.generation > generation, "the server is started again")
    await vllm.wait_ready(20)


def test_killing_the_service_leaves_no_process(tmp_path: Path) -> None:
    """The service is a process that starts the guard as ours does, and then dies of `kill -9`."""
    service = f"""
import os, subprocess, sys, time
reading, writing = os.pipe()
server = [sys.executable, "-c", {SERVER!r}, "0", {str(tmp_path / "engine.pid")!r}]
command = [sys.executable, "-P", {guard.__file__!r}, str(reading), *server]
print(subprocess.Popen(command, pass_fds=[reading], start_new_session=True).pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", service], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        leader = psutil.Process(int(process.stdout.readline()))
        deadline = time.monotonic() + 10
        while not (tmp_path / "engine.pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        processes = [leader, *leader.children(recursive=True)]
        assert len(processes) == 3

        process.send_signal(signal.SIGKILL)

    assert psutil.wait_procs(processes, timeout=10)[1] == []


async def test_sleep_leaves_no_process_and_waking_starts_a_new_server(vllm: SupervisedVllm) -> None:
    processes, generation = family(vllm), vllm.generation

    await vllm.sleep(drain=0)
    await until(lambda: gone(processes), "no process is left")
    with pytest.raises(VllmAsleep):
        await vllm.wait_ready(20)
    assert vllm.problem() is None
    await vllm.wake()
    await vllm.wait_ready(20)

    assert vllm.generation > generation  # it knows none of the adapters
    assert await vllm.healthy()


async def test_a_server_that_is_still_starting_can_be_put_to_sleep(vllm: SupervisedVllm) -> None:
    await vllm.sleep(drain=0)
    for _ in range(5):
        await vllm.wake()
        await asyncio.sleep(0.01)  # somewhere in a start

        await vllm.sleep(drain=0)

        assert vllm.pid is None
        assert not psutil.Process().children()
    await vllm.wake()
    await vllm.wait_ready(20)


async def test_with_alternate_the_server_is_not_started_before_it_is_woken(client: httpx.AsyncClient) -> None:
    command = [sys.executable, "-c", "raise SystemExit(1)"]
    vllm = SupervisedVllm(client, lambda port: command, os.environ, "base", start_timeout=20, awake=False)
    running = asyncio.create_task(vllm.run())
    await asyncio.sleep(0.05)

    assert vllm.pid is None and vllm.generation == 0
    running.cancel()


async def test_the_sockets_of_a_killed_server_are_cleared_away(client: httpx.AsyncClient, tmp_path: Path) -> None:
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    (sockets / "of-a-killed-server").touch()
    script = "import os, pathlib; pathlib.Path(os.environ['VLLM_RPC_BASE_PATH'], 'mine').touch(); " + SERVER
    command = [sys.executable, "-c", script]
    vllm = SupervisedVllm(
        client,
        lambda port: [*command, str(port), str(tmp_path / "pid")],
        os.environ,
        "base",
        start_timeout=20,
        sockets=sockets,
    )
    running = asyncio.create_task(vllm.run())
    try:
        await vllm.wait_ready(20)
        assert [item.name for item in sockets.iterdir()] == ["mine"]
    finally:
        running.cancel()
        await vllm.close()


def test_the_folder_of_sockets_is_short_and_the_stacks_own(tmp_path: Path) -> None:
    deep = tmp_path / ("folder" * 20)

    assert len(f"{socket_folder(deep)}/{uuid.uuid4()}") <= 107
    assert socket_folder(deep) == socket_folder(deep) != socket_folder(tmp_path)


async def test_a_server_that_never_starts_is_a_wrong_setting(client: httpx.AsyncClient) -> None:
    command = [sys.executable, "-c", "raise SystemExit(1)"]
    vllm = SupervisedVllm(client, lambda port: command, os.environ, "base", start_timeout=20)

    with pytest.raises(ConfigError, match="TUNESTREAM_MODEL__PATH"):
        await asyncio.wait_for(vllm.run(), 20)

    assert vllm.pid is None


async def test_waiting_for_a_server_that_is_not_there_ends(client: httpx.AsyncClient) -> None:
    vllm = SupervisedVllm(client, lambda port: [], {}, "base", start_timeout=20)

    with pytest.raises(VllmUnavailable):
        await vllm.wait_ready(0.01)


def options(command: list[str]) -> dict[str, str]:
    return {name: value for name, value in pairwise(command) if name.startswith("--")}


def test_the_command_line_says_what_the_settings_say() -> None:
    settings = Settings.model_validate(
        {
            "model": {"id": "acme/tiny", "path": "models/tiny"},
            "vllm": {"max_loras": 2, "max_lora_rank": 32, "max_model_len": 512, "extra_args": ("--seed", "7")},
        }
    )

    cpu, gpu = command_line(settings, 8123, cpu=True), command_line(settings, 8123, cpu=False)

    said = options(cpu)
    assert said["--served-model-name"] == "acme/tiny"
    assert Path(said["--model"]).is_absolute()
    assert (said["--host"], said["--port"]) == ("127.0.0.1", "8123")
    assert (said["--max-loras"], said["--max-lora-rank"], said["--max-model-len"]) == ("2", "32", "512")
    assert int(said["--max-cpu-loras"]) > 2
    assert cpu[-2:] == ["--seed", "7"]
    assert "--enforce-eager" in cpu and "--enforce-eager" not in gpu
    assert "--gpu-memory-utilization" in gpu and "--gpu-memory-utilization" not in cpu


def test_the_server_gets_none_of_our_secrets() -> None:
    inherited = {"TUNESTREAM_STORE__SECRET_KEY": "secret", "PATH": "/bin", "PYTHONDONTWRITEBYTECODE": "1"}

    given = environment(Settings(), inherited, cpu=True)

    assert "secret" not in given.values()
    assert given["PATH"] == "/bin"
    assert given["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert "PYTHONDONTWRITEBYTECODE" not in given  # every start would compile all of torch and vLLM
