"""The training process: `python -m services.trainer.engine plan.json out/ [--events]`. Needs local files only. With
`--wait` instead of the files, it imports its libraries first. Then each line of its standard input names the files of a
training, which a fork of the process does.

`messages.py` describes what it prints and writes, and its exit codes.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from services.trainer.domain.plan import parse_plan
from services.trainer.engine.messages import ENDED, Completed, Ended, ExitCode, Stopped
from services.trainer.engine.parallel.peers import Place
from services.trainer.engine.report.ending import report_end
from services.trainer.engine.report.reporter import Reporter
from shared.errors import InputError
from shared.process import end_with

BEFORE_TORCH = {
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    # By default the threads of OpenMP spin while they wait for each other. Beside other busy processes a step then took
    # up to 8 s instead of 1.2 s (on 2 cores). If nothing else runs, sleeping costs 5 %; on a virtual machine, where it
    # takes longer to wake a core, a third (benchmarks/NOTES.md).
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Environment variables that torch reads when it is loaded, so they are set before."""

UNUSED = ("scipy", "sklearn")
"""Packages that transformers imports where they are installed, for what no training does: it takes 1.6 s."""

AHEAD = ("torch", "transformers.modeling_utils", "matplotlib.figure")
"""The slowest imports of a training that leave a GPU alone."""


class StopRequest:
    """Handles SIGTERM and SIGINT.

    Once the training loop calls this object, the first signal makes it write a checkpoint and end. Before that, or at a
    second signal, the process ends at once. A `peer` leaves that to its leader, and a process that waits to its fork.
    """

    def __init__(self, *, peer: bool = False) -> None:
        self.requested = False
        self.watched = False
        self.peer = peer
        self.fork: int | None = None
        """The process that signals are for."""

    def __call__(self) -> bool:
        """Whether to stop. Whoever calls this must write a checkpoint and end when it is True."""
        self.watched = True
        return self.requested

    def handle(self, number: int, _frame: FrameType | None) -> None:
        if self.fork is not None:
            self._signal_fork(number)
            return
        if not self.peer and (self.requested or not self.watched):
            raise SystemExit(ExitCode.STOPPED)
        self.requested = True

    def kill_fork(self, _number: int, _frame: FrameType | None) -> None:
        self._signal_fork(signal.SIGKILL)

    def _signal_fork(self, number: int) -> None:
        if self.fork is not None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.fork, number)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.trainer.engine", description="Tune a LoRA adapter.")
    parser.add_argument("plan", type=Path, nargs="?", help="the plan, a JSON file (services/trainer/domain/plan.py)")
    parser.add_argument("out", type=Path, nargs="?", help="the folder that everything is written to")
    parser.add_argument(
        "--wait", action="store_true", help='train what each line of the input says: {"plan": …, "out": …}'
    )
    parser.add_argument("--events", action="store_true", help="print progress as one JSON object per line")
    parser.add_argument(
        "--parent", type=int, help="the parent's process id: this process is killed when the parent ends"
    )
    parser.add_argument("--peer", type=int, help=argparse.SUPPRESS)  # started by a run on several GPUs
    parser.add_argument("--of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    place = None if options.peer is None else Place(options.peer, options.of, options.out.parent)
    if options.parent is not None:
        end_with(options.parent)
    stop = StopRequest(peer=place is not None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.handle)
    for name, value in BEFORE_TORCH.items():
        os.environ.setdefault(name, value)
    if options.wait:
        _import_ahead()
        asked = _asked(stop)
        if asked is None:  # the parent needs no training any more
            return ExitCode.DONE
        options.plan, options.out = Path(asked["plan"]), Path(asked["out"])
    elif options.plan is None or options.out is None:
        parser.error("plan and out are needed, unless --wait is given")
    reporter = Reporter(options.out, events=options.events)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        return _train(options.plan, options.out, reporter, stop, place)
    except Exception as error:
        code = report_end(error, reporter)
        if code is None:
            raise
        return code


def _asked(stop: StopRequest) -> dict[str, str] | None:
    """What a line of the input asks this process to train; None: there is no line any more.

    For each line this process forks, waits until the fork has ended, and says so; it is the forks that this function
    returns in. A fork has all libraries at once, and shares their memory. Nothing has used the threads of torch before,
    of which a fork would have a broken copy. Where something has touched a GPU, this process does the only training.
    SIGUSR1 kills the training at once.
    """
    if not _may_fork():
        line = sys.stdin.readline()
        return dict(json.loads(line)) if line else None
    process = os.getpid()
    signal.signal(signal.SIGUSR1, stop.kill_fork)
    gc.freeze()  # the collector would write to the memory that is shared
    while line := sys.stdin.readline():
        stop.fork = os.fork() or None
        if stop.fork is None:
            end_with(process)
            os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
            return dict(json.loads(line))
        _, status = os.waitpid(stop.fork, 0)
        stop.fork = None
        sys.stderr.write(f"{ENDED}\n")
        sys.stderr.flush()
        sys.stdout.write(f"{Ended(at=time.time(), code=os.waitstatus_to_exitcode(status)).line()}\n")
        sys.stdout.flush()
    return None


def _may_fork() -> bool:
    """Whether a fork could use a GPU: not if this process has opened one, as a driver does when it is initialized."""
    opened = Path("/proc/self/fd")
    if not opened.is_dir():
        return False
    links = (os.path.realpath(link) for link in opened.iterdir())
    return not any(link.startswith(("/dev/nvidia", "/dev/kfd", "/dev/dri")) for link in links)


def _import_ahead() -> None:
    """Import what takes seconds, without touching a GPU: others may have its memory until the training begins."""
    for module in AHEAD:
        importlib.import_module(module)
    torch = sys.modules["torch"]
    if torch.version.cuda is None or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        importlib.import_module("services.trainer.engine.run")  # bitsandbytes among it, which asks the GPU what it is


def _train(plan_path: Path, out: Path, reporter: Reporter, stop: StopRequest, place: Place | None) -> int:
    try:
        plan = parse_plan(plan_path.read_bytes())
    except OSError as error:
        raise InputError("invalid_plan", f"the plan {str(plan_path)!r} cannot be read: {error.strerror}") from None
    # Importing torch takes seconds, so the plan is checked before.
    from services.trainer.engine.loop import Interrupted  # noqa: PLC0415
    from services.trainer.engine.run import run  # noqa: PLC0415

    try:
        result = run(plan, out, reporter, stop, place)
    except Interrupted:
        reporter.send(Stopped(at=time.time()))
        return ExitCode.STOPPED
    reporter.send(Completed.of(result, at=time.time()))
    return ExitCode.DONE


if __name__ == "__main__":
    for unused in UNUSED:
        sys.modules.setdefault(unused, None)  # type: ignore[arg-type]  # to an import it is not there
    sys.exit(main())
