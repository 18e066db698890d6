"""The api service as a process of its own, over the embedded store and broker."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.embedded import Embedded
from tests.support.environment import without_settings
from tests.support.fakes.servers import unused_port
from tests.support.waiting import eventually


@dataclass(frozen=True)
class ApiProcess:
    """A running api service, at `url`."""

    url: str
    pid: int

    def memory(self, what: str = "VmHWM") -> int:
        """Bytes of its resident memory: the most that it ever had, or with `VmRSS` what it has now."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


@asynccontextmanager
async def api_process(parts: Embedded, folder: Path) -> AsyncIterator[ApiProcess]:
    """Start one, with its database and its log in `folder`, and stop it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    port, settings = unused_port(), parts.settings
    environment = {
        **without_settings(os.environ),
        "TUNESTREAM_STORE__ENDPOINT": settings.store.endpoint,
        "TUNESTREAM_STORE__ACCESS_KEY": settings.store.access_key,
        "TUNESTREAM_STORE__SECRET_KEY": settings.store.secret_key.get_secret_value(),
        "TUNESTREAM_BUS__BOOTSTRAP": settings.bus.bootstrap,
        "TUNESTREAM_BUS__IDEMPOTENT": "false",
        "TUNESTREAM_API__PORT": str(port),
        "TUNESTREAM_API__DATABASE": str(folder / "api.sqlite3"),
    }
    url = f"http://127.0.0.1:{port}"

    async def ready() -> None:
        async with httpx.AsyncClient() as client:
            (await client.get(f"{url}/health/ready")).raise_for_status()

    with (folder / "api.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.api"), env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        await eventually(ready, httpx.HTTPError, 60.0)
        yield ApiProcess(url, process.pid)
    finally:
        process.terminate()
        await process.wait()
