"""A vLLM server that this service starts and supervises as a child process: its process group and its restarts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import httpx

from services.inference import metrics
from services.inference.vllm import guard
from services.inference.vllm.command import HOST, command_line, cpu_build, environment, socket_folder
from services.inference.vllm.profile import profile_of
from services.inference.vllm.server import Vllm
from shared.base import BaseProfile
from shared.errors import ConfigError
from shared.retry import Backoff
from shared.settings import Settings
from shared.tasks import in_background

log = logging.getLogger(__name__)

STOP_SECONDS = 15.0
BACKOFF = Backoff(0.5, 30.0)
STABLE_SECONDS = 60.0  # after a server ran for so long, the back-off starts again from the first pause
MAX_FAILED_STARTS = 3

Command = Callable[[int], Sequence[str]]
"""The command line of a server on that port of loopback."""


class SupervisedVllm(Vllm):
    """A server that `run` starts, watches, and starts again when it dies. `close` stops it."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        command: Command,
        environment: Mapping[str, str],
        base: str,
        *,
        port: int = 0,
        start_timeout: float,
        awake: bool = True,
        sockets: Path | None = None,
        prepare: Callable[[], Awaitable[None]] | None = None,
        probes: httpx.AsyncClient | None = None,
    ) -> None:
        """`sockets`: the folder for the sockets between the server's processes; no other server uses it. `prepare` is
        awaited before `command` is asked, at every start."""
        url = f"http://{HOST}:{port}"
        super().__init__(client, url, base, start_timeout=start_timeout, awake=awake, probes=probes)
        self.command = command
        self._environment = environment
        self._port = port
        self._sockets = sockets
        self.prepare = prepare
        self._lock = asyncio.Lock()
        """Held while the server starts or stops, so that a stop cannot miss a server that is just starting."""
        self._process: Process | None = None
        self._pipe: int | None = None

    @property
    def pid(self) -> int | None:
        """The leader of the process group of the server; None while no server runs."""
        return self._process.pid if self._process else None

    @property
    def trouble(self) -> str:
        return (
            "vLLM does not answer: it is starting, or cannot start; the log of the inference service says why "
            "(TUNESTREAM_MODEL__*, TUNESTREAM_VLLM__*)"
        )

    async def run(self) -> None:
        """Keep the server running until cancelled.

        Raises:
            ConfigError: the server died three times in a row before it ever answered.
        """
        loop = asyncio.get_running_loop()
        short_lives, failed_starts, ever_up = 0, 0, False
        while True:
            await self._awake.wait()
            self.generation += 1
            started = loop.time()
            up = await self._run_once()
            ever_up = ever_up or up
            if not self._awake.is_set():
                continue
            failed_starts = 0 if up else failed_starts + 1
            if failed_starts >= MAX_FAILED_STARTS and not ever_up:
                raise ConfigError(
                    f"vLLM ended {failed_starts} times before it answered; its output above says why. Check "
                    "TUNESTREAM_MODEL__ID, TUNESTREAM_MODEL__PATH and TUNESTREAM_VLLM__*"
                )
            short_lives = 0 if up and loop.time() - started > STABLE_SECONDS else short_lives + 1
            pause = BACKOFF.pause(short_lives + 1)
            log.warning("vLLM is started again", extra={"seconds": pause})
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Stop the server: first with SIGTERM, then kill the whole group."""
        async with self._lock:
            await self._stop()

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self._ready.clear()  # the stop is intended, so not by `_down`, which warns
        metrics.vllm_up.set(0)
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            process.terminate()
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        # also after a clean end: an engine process may have outlived its server
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        await process.wait()

    async def _run_once(self) -> bool:
        """Start the server and return when it has ended; True if it ever answered. A cancellation leaves it running
        until `close`, so that requests under way can finish."""
        if self.prepare is not None:
            await self.prepare()  # without the lock, which `close` needs
        async with self._lock:
            if not self._awake.is_set():
                return False
            process = await self._start()
        ended, silent, up = map(in_background, (process.wait(), self._watch(), self._ready.wait()))
        async with ended as end, silent as silence, up as first_answer:
            done, _ = await asyncio.wait({end, silence}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            answered = first_answer.done()
        if self._awake.is_set():
            outcome = "died" if end in done else "silent"
            log.warning("vLLM ended", extra={"code": process.returncode, "outcome": outcome})
        await self.close()
        return answered

    # --- sleep: a child is stopped. That frees all of its memory on every build of vLLM, and needs none of the routes
    # that sleep mode opens. It costs a start after each training.

    async def _free_memory(self) -> None:
        await self.close()

    async def _fill_memory(self) -> None:
        """Do nothing, because `run` starts the server."""

    async def _sleeps(self) -> bool:
        return self._process is None

    async def _start(self) -> Process:
        port = self._port or _free_port()
        self.url = f"http://{HOST}:{port}"
        environment = dict(self._environment)
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)  # of a server that was killed
            self._sockets.mkdir(mode=0o700, exist_ok=True)
            environment["VLLM_RPC_BASE_PATH"] = str(self._sockets)
        reading, writing = os.pipe()
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                guard.__file__,
                str(reading),
                *self.command(port),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,  # our log goes to stderr, so vLLM's does
                env=environment,
                pass_fds=(reading,),
                start_new_session=True,
            )
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        self._pipe = writing
        metrics.vllm_starts.inc()
        log.info("vLLM is starting", extra={"port": port, "pid": process.pid})
        return process


def supervised(
    client: httpx.AsyncClient, settings: Settings, probes: httpx.AsyncClient | None = None
) -> SupervisedVllm:
    """The server that the settings describe. `client` and `probes` are those of `Vllm`.

    Raises:
        ConfigError: vLLM is not installed.
    """
    cpu = cpu_build()
    known: list[BaseProfile] = []

    async def prepare() -> None:
        if not known and (made := await profile_of(settings.model)) is not None:
            known.append(made)

    return SupervisedVllm(
        client,
        lambda port: command_line(settings, port, cpu=cpu, profile=known[0] if known else None),
        environment(settings, os.environ, cpu=cpu),
        settings.model.id,
        port=settings.vllm.port,
        start_timeout=settings.inference.start_timeout_seconds,
        awake=settings.gpu.share == "split",
        sockets=socket_folder(settings.inference.adapter_dir),
        prepare=prepare,
        probes=probes,
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])
