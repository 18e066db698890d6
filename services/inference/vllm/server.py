"""Talks to a vLLM server over HTTP: its health, its restarts, its adapters, and its sleep.

`Vllm` talks to a server that others start and stop (`vllm.url`). `child.py` adds a server that this service starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from services.inference import metrics
from services.inference.errors import AdapterRefused, AdapterUnseen, VllmAsleep, VllmUnavailable
from shared.errors import ConfigError
from shared.tasks import wait_for_event

log = logging.getLogger(__name__)

HEALTH_TIMEOUT = 5.0
POLL_STARTING = 0.25
POLL_RUNNING = 5.0
POLL_UP = 0.5  # seconds between two looks at whether it is still up; this asks nobody
SILENCE = 60.0  # a server that is silent for so long hangs; a few seconds are normal on a busy CPU
ALREADY_LOADED = "already been loaded"
NO_FILES = "No adapter found"
NO_SUCH_ADAPTER = "cannot be found"


class Vllm:
    """A vLLM server. `run` must be running, or `ready` never becomes true."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        base: str,
        *,
        start_timeout: float,
        awake: bool = True,
        probes: httpx.AsyncClient | None = None,
    ) -> None:
        """`client`: for adapters and sleep. `base`: the name by which users ask for the base model. `start_timeout`:
        seconds that a start may take. `awake`: whether requests are sent from the start, or only after `wake`.
        `probes`: a client for health checks alone, so that nothing else delays them; None: `client`."""
        self.url = url.rstrip("/")
        self.base_name = base
        """The server's own name of its base model."""
        self.generation = 0
        """A number that grows whenever the server may have lost its adapters."""
        self._client = client
        self._probes = probes or client
        self._check: asyncio.Task[int | None] | None = None
        self._failed_checks = 0
        self._base = base
        self._start_timeout = start_timeout
        self._ready = asyncio.Event()
        self._suspected = asyncio.Event()
        self._awake = asyncio.Event()
        if awake:
            self._awake.set()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    def problem(self) -> str | None:
        """The check for /health/ready. A service whose vLLM sleeps is ready: it answers all requests but generations,
        and tells the clients of generations when to try again."""
        return None if self.ready or not self._awake.is_set() else "vLLM does not answer yet"

    @property
    def trouble(self) -> str:
        """What to tell an operator, in one line, while the server does not answer."""
        return f"{self.named} does not answer"

    @property
    def named(self) -> str:
        """The server with its setting, for messages to an operator."""
        return f"vLLM at {httpx.URL(self.url).copy_with(userinfo=b'')} (TUNESTREAM_VLLM__URL)"

    async def silent(self, seconds: float) -> None:
        """Return when the server has not been up for `seconds`."""
        while await wait_for_event(self._ready, seconds):
            await asyncio.sleep(POLL_UP)

    @asynccontextmanager
    async def using(self, seconds: float) -> AsyncIterator[None]:
        """Wait until the server answers, and keep it awake while the block runs. `sleep` waits for the block, but no
        longer than its `drain`.

        Raises:
            VllmAsleep: a training has the GPU.
            VllmUnavailable: it did not answer within `seconds`.
        """
        await self.wait_ready(seconds)
        with self._counted():
            yield

    async def wait_ready(self, seconds: float) -> None:
        """Return as soon as the server answers.

        Raises:
            VllmAsleep: a training has the GPU.
            VllmUnavailable: it did not answer within `seconds`.
        """
        if not self._awake.is_set():
            raise VllmAsleep("A training has the GPU; the model server sleeps until it is over")
        if not await wait_for_event(self._ready, seconds):
            raise VllmUnavailable(f"The model server has not been up for {seconds:.0f} s; it is starting")

    def suspect(self) -> None:
        """Note that a request broke. No other request is sent until the server has answered a health check."""
        self._ready.clear()
        self._suspected.set()

    async def healthy(self) -> bool:
        """Whether it answers a health check now, or a second one if the connection of the first broke, too. It does not
        if another check finds meanwhile that it does not: it may be back by now. All that ask at the same time, as when
        a thousand answers break, share one."""
        before = self._failed_checks
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._health_or_again())
        return await asyncio.shield(self._check) == 200 and self._failed_checks == before

    async def run(self) -> None:
        """Watch the server for as long as this service lives."""
        while True:
            await self._watch()
            self.generation += 1

    async def close(self) -> None:
        """Do nothing, because this service did not start the server."""

    # --- sleep ------------------------------------------------------------------------------------------------

    async def sleep(self, drain: float) -> None:
        """Refuse requests from now on, let those under way end (for at most `drain` seconds), free the GPU's memory.

        Raises:
            VllmUnavailable: whether the memory is free is not known; try again.
            ConfigError: the server cannot sleep.
        """
        self._awake.clear()
        metrics.vllm_asleep.set(1)
        await wait_for_event(self._idle, drain)
        await self._free_memory()

    async def keep_asleep(self) -> None:
        """Put the server back to sleep if it is awake, as after a restart by others. Raises like `sleep`."""
        if not await self._sleeps():
            await self.sleep(0)

    async def wake(self) -> None:
        """Let the server use the GPU's memory again, and take requests. Raises like `sleep`.

        Nothing happens if it is awake.
        """
        await self._fill_memory()
        self._awake.set()
        metrics.vllm_asleep.set(0)

    async def _free_memory(self) -> None:
        # level 1: the weights and the slots of adapters go to the host's memory; level 2 would lose them.
        # wait: the default cuts short the answers under way, which then look complete.
        await self._control("POST", "/sleep?level=1&mode=wait")
        if not await self._sleeps():
            raise VllmUnavailable("The model server did not fall asleep")

    async def _fill_memory(self) -> None:
        if await self._sleeps():
            await self._control("POST", "/wake_up")
            if await self._sleeps():
                raise VllmUnavailable("The model server did not wake up")

    async def _sleeps(self) -> bool:
        try:
            return bool((await self._control("GET", "/is_sleeping")).json()["is_sleeping"])
        except (ValueError, LookupError, TypeError) as error:
            raise VllmUnavailable("The model server does not say whether it sleeps") from error

    async def _control(self, method: str, path: str) -> httpx.Response:
        try:
            response = await self._client.request(method, self.url + path)
        except httpx.RequestError as error:
            raise VllmUnavailable(f"The model server does not answer ({type(error).__name__})") from error
        if response.status_code == 404:
            raise ConfigError(
                "TUNESTREAM_GPU__SHARE=alternate needs a vLLM that can sleep: start it with `python -m "
                "services.inference.vllm`, or with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1"
            )
        if response.is_error:
            raise VllmUnavailable(f"The model server answers {response.status_code}")
        return response

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    # --- adapters ---------------------------------------------------------------------------------------------

    async def load_adapter(self, name: str, path: Path) -> None:
        """Serve the adapter in the absolute folder `path` as `name`; a name that is served already is success.

        Raises:
            AdapterRefused: the server cannot load it; `AdapterUnseen` if it does not see the folder.
            VllmUnavailable: the server is not there.
        """
        assert path.is_absolute(), "vLLM looks on a hub for a relative path that does not exist"
        status, message = await self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        if status != 200 and ALREADY_LOADED not in message:
            if status >= 500 and not await self.healthy():
                self.suspect()
                raise VllmUnavailable("The model server went down while it loaded an adapter")
            kind = AdapterUnseen if NO_FILES in message else AdapterRefused
            raise kind(f"vLLM cannot load the adapter of {name}: {message[:500]}")

    async def unload_adapter(self, name: str) -> None:
        """Stop serving `name`; a name that is not served is success."""
        status, message = await self._post("/v1/unload_lora_adapter", {"lora_name": name})
        if status != 200 and NO_SUCH_ADAPTER not in message:
            raise AdapterRefused(f"vLLM cannot unload the adapter of {name}: {message[:500]}")

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        try:
            with self._counted():  # an adapter may be unloaded in the background, outside of any request
                response = await self._client.post(self.url + path, json=body)
        except httpx.RequestError as error:
            self.suspect()
            raise VllmUnavailable(f"The model server does not answer ({type(error).__name__})") from error
        return response.status_code, response.text

    # --- health -----------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Set `ready` by the health of the server. Return when the server is dead or has been silent for too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._start_timeout
        was_up = False
        while True:
            self._suspected.clear()
            status = await self._checked()
            if status == 200:
                if not self._ready.is_set():
                    await self._up()
                was_up, deadline = True, loop.time() + SILENCE
            else:
                self._down()
                # 503 means that the engine inside of the server has died; the server ends soon after it
                if loop.time() > deadline or (was_up and status is not None):
                    return
            await wait_for_event(self._suspected, POLL_RUNNING if self.ready else POLL_STARTING)

    async def _health(self) -> int | None:
        """The status of /health; None: no answer. What is not known, because this process may open no more files, is
        taken to be as before."""
        try:
            return (await self._probes.get(self.url + "/health", timeout=HEALTH_TIMEOUT)).status_code
        except httpx.TransportError as error:
            if not _out_of_files(error):
                return None
        log.error("this process has as many files open as it may (ulimit -n), so the health of vLLM is not known")
        return 200 if self.ready else None

    async def _health_or_again(self) -> int | None:
        status = await self._health()
        return await self._health() if status is None else status

    async def _checked(self) -> int | None:
        """`_health`, and what fails is counted."""
        status = await self._health()
        self._failed_checks += status != 200
        return status

    async def _up(self) -> None:
        with contextlib.suppress(httpx.TransportError, ValueError, KeyError):
            cards = (await self._probes.get(self.url + "/v1/models", timeout=HEALTH_TIMEOUT)).json()["data"]
            bases = [card["id"] for card in cards if not card.get("parent")]
            if self._base not in bases:
                self.base_name = bases[0] if bases else self._base
            self._ready.set()
            metrics.vllm_up.set(1)
            log.info("vLLM answers", extra={"model": self.base_name})

    def _down(self) -> None:
        if self._ready.is_set():
            log.warning("vLLM does not answer")
        self._ready.clear()
        metrics.vllm_up.set(0)


def _out_of_files(error: BaseException | None) -> bool:
    """Whether it was raised because of a limit of open files, of this process or of the machine."""
    while error is not None and not (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
        error = error.__cause__ or error.__context__
    return error is not None
