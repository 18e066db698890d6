"""vLLM as a server of its own: the same command line as the supervised one's."""

from __future__ import annotations

import os
import sys
from itertools import pairwise

import pytest

from services.inference import vllm_server
from services.inference.command import command_line
from shared.settings import Settings, load_settings


class Became(Exception):
    """The process would be vLLM now."""


def become(monkeypatch: pytest.MonkeyPatch, *, cpu: bool, **environment: str) -> tuple[list[str], dict[str, str]]:
    """What the process becomes, and in which environment."""

    def execve(path: str, command: list[str], environment: dict[str, str]) -> None:
        raise Became(command, environment)

    for name, value in environment.items():
        monkeypatch.setenv(f"TUNESTREAM_{name}", value)
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(vllm_server, "cpu_build", lambda: cpu)
    load_settings.cache_clear()
    try:
        with pytest.raises(Became) as became:
            vllm_server.main()
    finally:
        load_settings.cache_clear()
    command, given = became.value.args
    return command, given


def test_it_is_the_supervised_server_on_an_address_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    command, _ = become(monkeypatch, cpu=False, MODEL__ID="acme/tiny", VLLM__MAX_LORAS="2", VLLM__HOST="0.0.0.0")

    settings = Settings.model_validate({"model": {"id": "acme/tiny"}, "vllm": {"max_loras": 2}})
    assert command == command_line(settings, 8000, cpu=False, host="0.0.0.0")
    assert command[0] == sys.executable


def test_none_of_our_secrets_is_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    _, given = become(monkeypatch, cpu=True, STORE__SECRET_KEY="secret")

    assert "secret" not in given.values()
    assert "VLLM_SERVER_DEV_MODE" not in given
    assert given["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"


@pytest.mark.parametrize("cpu", [False, True])
def test_with_alternate_it_can_sleep(monkeypatch: pytest.MonkeyPatch, cpu: bool) -> None:
    command, given = become(monkeypatch, cpu=cpu, GPU__SHARE="alternate", VLLM__PORT="8123")

    assert given["VLLM_SERVER_DEV_MODE"] == "1"
    assert ("--enable-sleep-mode" in command) is not cpu  # the CPU build refuses to start with it
    assert ("--port", "8123") in pairwise(command)


def test_wrong_settings_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TUNESTREAM_GPU__SHARE", "both")
    load_settings.cache_clear()

    with pytest.raises(SystemExit) as exit:
        vllm_server.main()

    load_settings.cache_clear()
    assert exit.value.code == 78
    assert "TUNESTREAM_GPU__SHARE" in capsys.readouterr().err
