"""The process that reads one file. Its request comes on stdin as a line of JSON; its answers go to stdout, one a line.

It is a process of its own so that a file that takes all memory, or hours, stops nothing else.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from pathlib import Path

from services.ingest.sources.child import Answer, Failed, Request, Step
from services.ingest.sources.limits import CODE, PARAM
from services.ingest.sources.mine import mine
from shared import disk, process
from shared.errors import InputError

STEP_SECONDS = 1.0
WATCH_SECONDS = 0.2
NICENESS = 5
"""The service and what else runs on this machine go first."""


def main() -> None:
    request = Request.model_validate_json(sys.stdin.readline())
    process.end_with(request.parent)
    os.nice(NICENESS)
    os.environ["SQLITE_TMPDIR"] = str(Path(request.out).parent)  # where it sorts
    threading.Thread(target=_watch, args=(request.memory_bytes,), daemon=True).start()
    last = time.monotonic()

    def on_progress(rows: int, share: float) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= STEP_SECONDS:
            last = now
            _say(Answer(step=Step(rows=rows, share=round(share, 4))))

    try:
        report = mine(
            Path(request.path),
            Path(request.out),
            name=request.name,
            source=request.source,
            limits=request.limits,
            on_progress=on_progress,
        )
    except InputError as error:
        _say(Answer(failed=Failed(code=error.code, message=error.message, param=error.param)))
    except Exception as error:
        if not disk.is_full(error) and "disk is full" not in str(error):  # the second is SQLite's
            raise
        _say(Answer(disk_full=True))
    else:
        _say(Answer(report=report))


def _say(answer: Answer) -> None:
    sys.stdout.write(answer.model_dump_json(exclude_none=True) + "\n")
    sys.stdout.flush()


def _watch(most: int) -> None:
    """End the process when it holds more memory than it may."""
    page = resource.getpagesize()
    while True:
        time.sleep(WATCH_SECONDS)
        held = int(Path("/proc/self/statm").read_text().split()[1]) * page
        if held > most:
            message = (
                f"Reading the file takes more than {most / 2**30:g} GiB of memory: it is damaged, or its parts are "
                "very large. Save it as CSV or JSON lines, or raise TUNESTREAM_INGEST__MEMORY_BYTES."
            )
            _say(Answer(failed=Failed(code=CODE, message=message, param=PARAM)))
            os._exit(0)


main()
