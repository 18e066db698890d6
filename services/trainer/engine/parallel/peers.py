"""The processes beside the leader: started by it, told to stop by it, and ended with it.

The leader is the process that was asked to train. It alone reports, writes checkpoints and the result. A peer is an
ordinary run in a folder of its own, of which nobody reads anything but `error.json`.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from services.trainer.domain.plan import Plan
from services.trainer.engine.messages import ErrorDocument, ExitCode, ProcessLost
from services.trainer.engine.report.ending import report_end
from services.trainer.engine.report.reporter import Reporter
from shared.errors import ConfigError, TransientError

ROOT = Path(__file__).resolve().parents[4]
ENGINE = "services.trainer.engine"
GRACE_SECONDS = 10.0
"""How long the leader may take to notice by itself that a peer has ended; then it is ended, too."""


@dataclass(frozen=True)
class Place:
    """Where a process stands in its group: its number, counted from 0, the number of them all, and the folder that they
    share. The leader has the number 0, and so has a process by itself."""

    number: int = 0
    of: int = 1
    folder: Path = Path()

    @property
    def has_peers(self) -> bool:
        """Whether it is the leader of others."""
        return self.number == 0 and self.of > 1


class Peers:
    """Within a `with` block, the peers of the leader run; of a process by itself, and of a peer, there are none.

    `hand` writes what they need into the folder. If one ends before the leader does, the block raises what it ended of.
    None is left when the block is left, however that happens; the kernel kills them if the leader is killed.

    Raises:
        InputError, TransientError, ConfigError, OSError: a peer has ended of it.
        ProcessLost: a peer has crashed or was killed, or the processes have lost each other.
    """

    def __init__(self, place: Place, plan: Plan, hand: Callable[[Path], None], reporter: Reporter) -> None:
        self.place = place
        self._plan = plan
        self._hand = hand
        self._reporter = reporter
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._left = threading.Event()
        self._lost = threading.Event()
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        if self.place.has_peers:
            shutil.rmtree(self.place.folder, ignore_errors=True)
            self.place.folder.mkdir(mode=0o700, parents=True)
            (self.place.folder / "plan.json").write_text(self._plan.model_dump_json())
            self._hand(self.place.folder)
            try:
                for number in range(1, self.place.of):
                    self._processes.append(self._start(number))
            except OSError:
                self._end()
                raise
            for number, process in enumerate(self._processes, start=1):
                threading.Thread(target=self._watch, args=(number, process), name="peers", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if isinstance(error, ProcessLost) and self._processes:
            self._lost.wait(GRACE_SECONDS)
        with self._lock:
            found = self._error
        self._end()
        if isinstance(error, ProcessLost) and found is not None:
            raise found from error

    def stopping(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """`stop`, of which the peers are told, so that they do not finish a long step first."""

        def asked() -> bool:
            if not stop():
                return False
            for process in self._processes:
                process.terminate()
            return True

        return asked if self._processes else stop

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        folder = self.place.folder
        # The working directory stays: paths of a plan that was made by hand are relative to it.
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", ENGINE, f"{folder}/plan.json", f"{folder}/{number}"]
        command += ["--peer", str(number), "--of", str(self.place.of), "--parent", str(os.getpid())]
        silent = subprocess.DEVNULL
        return subprocess.Popen(command, stdin=silent, stdout=silent, env={**os.environ, "PYTHONPATH": path})

    def _watch(self, number: int, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if code in (ExitCode.DONE, ExitCode.STOPPED):  # it ends so only together with the leader
            return
        if code == ExitCode.PROCESS_LOST and self._lost.wait(GRACE_SECONDS):  # because of one whose end is known
            return
        with self._lock:
            if self._error is not None:
                return
            self._error = error = self._error_of(number, code)
        self._lost.set()
        if self._left.wait(GRACE_SECONDS):
            return
        # The training waits for what will not come, maybe within a kernel of the GPU, where nothing can interrupt it.
        ended = report_end(error, self._reporter)
        os._exit(ExitCode.PROCESS_LOST if ended is None else ended)

    def _error_of(self, number: int, code: int) -> Exception:
        if code in (ExitCode.WRONG_INPUT, ExitCode.UNAVAILABLE, ExitCode.WRONG_SETTING):
            with suppress(OSError, ValueError):  # it could not be written
                path = self.place.folder / str(number) / "error.json"
                document = ErrorDocument.model_validate_json(path.read_bytes())
                if code == ExitCode.WRONG_INPUT:
                    return document.exception()
                return (TransientError if code == ExitCode.UNAVAILABLE else ConfigError)(document.message)
        if code == ExitCode.NO_SPACE:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        how = f"was ended by signal {-code} (9: often, memory ran out)" if code < 0 else f"crashed, exit code {code}"
        if code == ExitCode.PROCESS_LOST:
            how = "waited for another for too long"
        which = f"process {number + 1} of the {self.place.of} that train together"
        return ProcessLost(f"{which} {how}; the others were ended")

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        if self.place.has_peers:
            shutil.rmtree(self.place.folder, ignore_errors=True)
