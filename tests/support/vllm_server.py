"""A real vLLM server alone, started with the command line of the inference service."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import httpx

from services.inference.vllm.command import command_line, environment
from shared.settings import Settings
from tests.support.fakes.servers import unused_port
from tests.support.waiting import eventually


class VllmServer:
    """A server of the base in `settings`. It starts while the test does other things; `ready` waits for it."""

    def __init__(self, settings: Settings, log: Path) -> None:
        port = unused_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command_line(settings, port, cpu=True),
                env=environment(settings, os.environ, cpu=True),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                start_new_session=True,
            )

    async def ready(self, seconds: float = 300.0) -> None:
        """Wait until it answers; an `AssertionError` shows its output if it ends before."""
        async with httpx.AsyncClient(base_url=self.url) as http:

            async def healthy() -> None:
                assert self._process.poll() is None, self._log.read_text()[-3_000:]
                (await http.get("/health")).raise_for_status()

            await eventually(healthy, httpx.HTTPError, seconds)

    async def load(self, name: str, adapter: Path) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as http:
            wanted = {"lora_name": name, "lora_path": str(adapter)}
            (await http.post("/v1/load_lora_adapter", json=wanted)).raise_for_status()

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(20)
