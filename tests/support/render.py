"""vLLM's render server on a base, as `python -m services.inference.vllm.render` runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.environment import without_settings
from tests.support.user import ROOT

START_SECONDS = 240.0
BASE_ID = "acme/base"


@contextmanager
def render_server(base: Path, *flags: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """The URL of a render server for the base in a folder, which it knows as `BASE_ID`. It has started when the block
    begins, and has ended after it.

    A start takes 9 s on two idle cores, and half a minute beside other work (0.9 GB of memory). The first one for a
    model class takes as long again, because vLLM looks at the class in another process and remembers what it saw. So
    share a server: a fixture of a whole session is right.

    `flags`: further options of vLLM. `environment`: variables to set for it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    variables = {
        "TUNESTREAM_MODEL__ID": BASE_ID,
        "TUNESTREAM_MODEL__PATH": str(base),
        "TUNESTREAM_RENDER__PORT": str(port),
        "TUNESTREAM_VLLM__EXTRA_ARGS": json.dumps(flags),
        "PYTHONPATH": str(ROOT),
    }
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+b") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "services.inference.vllm.render"],
            cwd=folder,
            env={**without_settings(os.environ), **variables, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait(server, url, Path(log.name))
            yield url
        finally:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    client = httpx.Client(timeout=5, trust_env=False)
    while True:
        try:
            if client.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        late = time.monotonic() > deadline
        assert not late and server.poll() is None, f"the render server did not start:\n{log.read_text()[-3000:]}"
        time.sleep(0.1)
