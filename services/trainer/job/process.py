"""The training process. It is a child process and not a thread, so that the service survives when it is killed or
crashes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

from services.trainer.engine.messages import ENDED, AnyMessage, Ended, parse_message

ROOT = Path(__file__).resolve().parents[3]
TAIL_LINES = 400
KILL_SECONDS = 10.0
"""For how long a process may take to say that the training was killed."""
NOT_INHERITED = ("TUNESTREAM_", "WANDB_", "MLFLOW_")


class TrainingProcess:
    """A running training process, or one that was started ahead, which does one training after the other, each in a
    fork of itself. It is killed when its parent ends, even if the parent crashes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr: deque[str] = deque(maxlen=TAIL_LINES)
        self.begun = False
        """Whether `begin` asked it for a training, at any time."""
        self._code: int | None = None
        """Of the last training of several; None: it has not ended."""
        self._drained = asyncio.Event()
        self._draining = asyncio.create_task(self._drain())

    @classmethod
    async def start(cls, plan: Path, out: Path, *, gpu: str | None, threads: int | None) -> TrainingProcess:
        """Start the training of the plan in the file `plan`; everything is written below `out`."""
        return await cls._start([str(plan), str(out)], asyncio.subprocess.DEVNULL, gpu, threads)

    @classmethod
    async def start_ahead(cls, *, gpu: str | None, threads: int | None) -> TrainingProcess:
        """Start a process that imports its libraries, and then waits for each `begin`. It does not touch the GPU; its
        forks do."""
        return await cls._start(["--wait"], asyncio.subprocess.PIPE, gpu, threads)

    @classmethod
    async def _start(cls, asked: list[str], stdin: int, gpu: str | None, threads: int | None) -> TrainingProcess:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.trainer.engine",
            *asked,
            "--events",
            "--parent",
            str(os.getpid()),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(os.environ, gpu=gpu, threads=threads),
        )
        return cls(process)

    async def begin(self, plan: Path, out: Path) -> bool:
        """Let a process that was started ahead train the plan in the file `plan`, as `start` does; the training before
        must have ended. False: the process has ended."""
        stdin = self._process.stdin
        if stdin is None or self._process.returncode is not None:
            return False
        self.begun, self._code = True, None
        self._stderr.clear()
        self._drained.clear()
        try:
            stdin.write(json.dumps({"plan": str(plan), "out": str(out)}).encode() + b"\n")
            await stdin.drain()
        except ConnectionError:
            return False
        return True

    @property
    def pid(self) -> int:
        return self._process.pid

    async def end(self) -> None:
        """Let a process that was started ahead begin no other training. The one that it does goes on; else wait for its
        end."""
        if self.begun and self._code is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
        else:
            await self.kill()

    async def messages(self) -> AsyncIterator[AnyMessage]:
        """The messages of the training, until it ends. Iterating may stop and begin again; no message is lost."""
        assert self._process.stdout is not None
        while self._code is None and (line := await self._process.stdout.readline()):
            message = parse_message(line)
            if isinstance(message, Ended):
                self._code = message.code
            elif message is not None:
                yield message

    async def wait(self) -> int:
        """The exit code of the training, after its last message; negative: the signal that ended it."""
        if self._code is None:
            return await self.ended()
        await self._drained.wait()
        return self._code

    async def ended(self) -> int:
        """The exit code of the process itself, when it ends."""
        await self._draining
        return await self._process.wait()

    def terminate(self) -> None:
        """Ask the training to write a checkpoint and end."""
        if self._process.returncode is None:
            self._process.terminate()

    async def kill(self) -> None:
        """Kill it, and its training, and wait for its end."""
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()

    async def release(self) -> None:
        """No more is asked of this training: kill it if it has not ended. A process that does others goes on."""
        if self._code is None and self._process.stdin is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILL_SECONDS):
                    async for _ in self.messages():
                        pass
        if self._code is None:
            await self.kill()

    @property
    def trace(self) -> str:
        """The place of a crash, without user text, so that it can be logged."""
        return safe_trace(self._stderr)

    async def _drain(self) -> None:
        assert self._process.stderr is not None
        begun = ""
        while chunk := await self._process.stderr.read(2**16):
            *lines, begun = (begun + chunk.decode(errors="replace"))[-(2**17) :].split("\n")
            if ENDED in lines:
                self._drained.set()
            self._stderr.extend(line for line in lines if line != ENDED)
        self._stderr.append(begun)
        self._drained.set()


def child_environment(environment: Mapping[str, str], *, gpu: str | None, threads: int | None) -> dict[str, str]:
    """The environment of the child, without what holds secrets that it does not need. `gpu`: the devices that it sees,
    or `cpu` for none."""
    inherited = {name: value for name, value in environment.items() if not name.startswith(NOT_INHERITED)}
    path = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    inherited["PYTHONPATH"] = os.pathsep.join(path)
    inherited["PYTHONUNBUFFERED"] = "1"
    if gpu is not None:
        inherited["CUDA_VISIBLE_DEVICES"] = "" if gpu == "cpu" else gpu
    if threads is not None:
        inherited["OMP_NUM_THREADS"] = str(threads)
        inherited["RAYON_NUM_THREADS"] = str(threads)  # of the tokenizer
    return inherited


_FRAME = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
_EXCEPTION = re.compile(r"(?P<name>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit))(?=:|$)")
_OF_THE_MACHINE = re.compile(r"(torch\.\w+|RuntimeError|AcceleratorError): (CUDA|NCCL|cuDNN|cuBLAS|NVML)[^\n]*")


def safe_trace(stderr: Iterable[str], most_frames: int = 6) -> str:
    """The last frames and the name of the exception of a traceback, without messages and source lines, which may hold
    user text; messages of the GPU's libraries are kept."""
    frames: list[str] = []
    exception = ""
    for line in stderr:
        if frame := _FRAME.match(line):
            frames.append(f"{Path(frame['file']).name}:{frame['line']} in {frame['function']}")
        elif machine := _OF_THE_MACHINE.match(line):
            exception = machine[0]
        elif named := _EXCEPTION.match(line):
            exception = named["name"]
    return " > ".join([*frames[-most_frames:], *filter(None, [exception])])
