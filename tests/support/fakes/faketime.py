"""Processes whose clock is wrong, by libfaketime. Monotonic clocks go right, as on a machine whose clock was set."""

from __future__ import annotations

import importlib.util
from pathlib import Path

VENDORED = Path("vendor", "libfaketime", "src", "libfaketime.so.1")


def shared_object() -> Path:
    """The library of the package `libfaketime`."""
    found = importlib.util.find_spec("libfaketime")
    assert found is not None and found.origin, "the package libfaketime is installed (extra `dev`)"
    path = Path(found.origin).with_name(VENDORED.parts[0]).joinpath(*VENDORED.parts[1:])
    assert path.is_file(), f"{path} is missing: the package libfaketime was built without its library"
    return path


def set_clock(file: Path, seconds: float) -> None:
    """Set the clock of every process that reads `file`, to `seconds` before (negative) or after the right time."""
    partial = file.with_suffix(".new")
    partial.write_text(f"{seconds:+.0f}s\n")
    partial.replace(file)


def environment(file: Path) -> dict[str, str]:
    """The variables of a process whose clock is set by `file`, which it reads every second."""
    return {
        "LD_PRELOAD": str(shared_object()),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # else it shortens the timed waits by which Python's threads take turns: they burn a core meanwhile, and a lease
        # may be lost to that instead of the clock
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        "NO_FAKE_STAT": "1",
    }
