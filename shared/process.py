"""The process itself: it ends with the one that started it, how many files it may open, how it collects garbage."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Ask the kernel to kill this process when the process `parent`, which has started it, ends, even by a crash.

    Linux only; elsewhere nothing happens. The kernel looks at the thread of the parent that started this process.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def collect_rarely() -> None:
    """Keep Python's collector of cyclic garbage from stopping a service that answers thousands of requests a second.

    A full collection looks at every object, and with all modules loaded that takes up to 0.1 s. What is there now stays
    for the life of the process, so it is left out for good. What requests leave behind is mostly freed without the
    collector, so it may look less often; but of more than some thousand new objects one look takes milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 100)


def allow_open_files(wanted: int) -> int:
    """Let this process open `wanted` files at a time, or as many as the system allows. Returns how many those are.

    Most systems begin with 1,024, and allow a process to have more if it asks.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    given = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
    return given
