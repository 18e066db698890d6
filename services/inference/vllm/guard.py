"""A small process between this service and vLLM, so that no part of vLLM outlives the service.

vLLM's engine and worker processes survive a `kill -9` of their server (seen with 0.32: they keep their gigabytes), and
a server cannot notice a `kill -9` of the service. So this process leads a process group in which all of vLLM runs, and
holds one end of a pipe to the service. When the pipe closes, for whatever reason, the group is killed. It runs as a
script (`guard.py PIPE COMMAND…`), and imports only the standard library, so that it starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1


def main(pipe: int, command: list[str]) -> int:
    """The exit code of `command`, which has ended; negative if a signal ended it."""
    waking, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    # set before the start, so that the end of a short-lived child is seen
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_guard)  # noqa: PLW1509  no threads here
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        selector.register(waking, selectors.EVENT_READ)
        while child.poll() is None:
            for key, _ in selector.select():
                if key.fd == pipe:
                    os.killpg(0, signal.SIGKILL)  # this process included
                os.read(waking, 64)
    return child.returncode


def _die_with_guard() -> None:
    """Let the server die with the guard, if only the guard is killed. Linux only, and not for the engine processes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    code = main(int(sys.argv[1]), sys.argv[2:])
    sys.exit(code if code >= 0 else 128 - code)
