"""The process of the render server: what vLLM sees when it is imported in it, and when it ends. vLLM is a fake here,
because the real one takes ten seconds to import."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.inference.vllm.render import options
from shared.settings import Settings
from tests.support.environment import without_settings
from tests.support.user import ROOT

# what vLLM could see while it is imported; then an import that takes long
FAKE = """
import json, os, sys, time
from importlib import metadata
print(json.dumps({"environment": dict(os.environ), "path": sys.path, "version": metadata.version("vllm")}), flush=True)
time.sleep(600)
"""
PARENT = """
import subprocess, sys
server = subprocess.Popen([sys.executable, "-m", "services.inference.vllm.render"])
print(server.pid, flush=True)
server.wait()
"""
EARLIER_THREAD = """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
from services.inference.vllm import render
render.main()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which a GPU build of vLLM is installed."""
    package = tmp_path / "packages" / "vllm" / "entrypoints" / "cli"
    package.mkdir(parents=True)
    (package / "launch.py").write_text(FAKE)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (tmp_path / "packages" / "uvloop.py").touch()
    about = tmp_path / "packages" / "vllm-0.26.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.26.0\n")
    return {
        **without_settings(os.environ),
        "PYTHONPATH": f"{tmp_path / 'packages'}:{ROOT}",
        "TUNESTREAM_STORE__SECRET_KEY": "f00d-f00d",
        "TUNESTREAM_MODEL__PATH": str(tmp_path),  # where no base is, so that its profile is given up at once
        "CUDA_VISIBLE_DEVICES": "0",
    }


def start(environment: dict[str, str], folder: Path, *code: str) -> subprocess.Popen[str]:
    command = [sys.executable, *(code or ("-m", "services.inference.vllm.render"))]
    return subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True)


def what_vllm_sees(server: subprocess.Popen[str]) -> dict[str, Any]:
    assert server.stdout is not None
    seen: dict[str, Any] = json.loads(server.stdout.readline())
    return seen


def test_vllm_sees_a_cpu_build_no_gpu_no_secrets_and_no_package_of_the_working_directory(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with start(environment, tmp_path) as server:
        seen = what_vllm_sees(server)
        server.kill()

    assert seen["version"] == "0.26.0+cpu"
    assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert not any("TUNESTREAM" in name or value == "f00d-f00d" for name, value in seen["environment"].items())
    assert not {"", str(tmp_path)} & set(seen["path"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_on_a_signal_even_while_vllm_is_imported(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    with start(environment, tmp_path) as server:
        what_vllm_sees(server)
        server.send_signal(number)

        assert server.wait(timeout=5) == 0


def test_it_ends_at_once_whichever_thread_gets_the_signal(environment: dict[str, str], tmp_path: Path) -> None:
    """As beside the thread of asyncio that waited for a child, and on a busy machine has not ended yet: the main thread
    hears of a signal only when what it does is over."""
    with start(environment, tmp_path, "-c", EARLIER_THREAD) as server:
        what_vllm_sees(server)
        server.terminate()

        try:
            assert server.wait(timeout=5) == 0
        finally:
            server.kill()


def test_it_ends_with_the_process_that_started_it(environment: dict[str, str], tmp_path: Path) -> None:
    with start(environment, tmp_path, "-c", PARENT) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        what_vllm_sees(parent)  # its output is that of its parent
        parent.kill()

        psutil.wait_procs([server], timeout=5)
        assert not server.is_running()


def test_wrong_settings_end_it_with_a_line_that_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.inference.vllm.render"],
        env={**environment, "TUNESTREAM_RENDER__ROWS": "0"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 78
    assert "TUNESTREAM_RENDER__ROWS" in done.stderr


def test_it_is_told_of_the_base_what_the_real_server_is_told() -> None:
    vllm = {"max_model_len": 512, "dtype": "float16", "extra_args": ("--tokenizer-mode", "hf")}
    settings = Settings.model_validate({"model": {"id": "acme/base"}, "vllm": vllm})

    told = options(settings)

    assert told[:8] == (
        ["--model", "acme/base", "--served-model-name", "acme/base", "--dtype", "float16", "--max-model-len", "512"]
    )
    assert told[-2:] == ["--tokenizer-mode", "hf"]
