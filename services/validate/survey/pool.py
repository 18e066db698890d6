"""Looks at all pieces of a file on all cores, and gives the answers in the order of the file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import msgspec

from services.validate.survey.chunks import SIZE, Chunk
from services.validate.survey.look import look
from services.validate.survey.part import Options, Part
from services.validate.survey.worker import Order, read, receive, send

MOST_PROCESSES = 4  # each takes about 60 MB
WORTH_IT = 4 * SIZE
"""A smaller file is done before the processes have started."""
_ROOT = Path(__file__).parents[3]


def looked_at(
    pieces: Iterable[Chunk], options: Options, size: int, stop: threading.Event
) -> Generator[tuple[Chunk, Part]]:
    """Every piece with what it holds, in order. It ends early once `stop` is set. `size`: bytes of the file."""
    processes = min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
    if size < WORTH_IT or processes < 2:
        for piece in pieces:
            if stop.is_set():
                return
            yield piece, _alone(piece, options)
        return
    workers = [_Worker(options) for _ in range(processes)]
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def ask(piece: Chunk) -> Part:
        worker = idle.get()
        try:
            return worker.look(piece)
        finally:
            idle.put(worker)

    threads = ThreadPoolExecutor(processes, thread_name_prefix="survey")
    waiting: deque[tuple[Chunk, Future[Part]]] = deque()
    try:
        for piece in pieces:
            if stop.is_set():
                return
            waiting.append((piece, threads.submit(ask, piece)))
            if len(waiting) > 2 * processes:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting and not stop.is_set():
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        # the processes go first: a thread that waits for one then ends
        for worker in workers:
            worker.close()
        threads.shutdown(cancel_futures=True)


def _alone(piece: Chunk, options: Options) -> Part:
    if piece.too_long:
        return Part(lines=1, row_labels=bytes(4))
    return look(read(options.path, piece.start, piece.end), options, first=piece.start == 0)


class _Worker:
    """One process of `worker.py`."""

    def __init__(self, options: Options) -> None:
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.validate.survey.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._options: Options | None = options
        self._decode = msgspec.msgpack.Decoder(Part).decode

    def look(self, piece: Chunk) -> Part:
        """Raises:
        RuntimeError: the process died, as it does when memory runs out.
        """
        if piece.too_long:
            return Part(lines=1, row_labels=bytes(4))
        assert self._process.stdin is not None and self._process.stdout is not None
        order = Order(piece.start, piece.end, self._options)
        self._options = None
        try:
            send(self._process.stdin, msgspec.msgpack.encode(order))
            answer = receive(self._process.stdout)
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise RuntimeError(f"a process that checks the file ended with code {self._process.wait()}")
        return self._decode(answer)

    def close(self) -> None:
        """End the process; what it works on is not wanted any more."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        self._process.wait()
