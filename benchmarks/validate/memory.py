"""The most memory that a whole check needs, near-duplicates and the processes of the survey included, for files of
several sizes, each checked by a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.validate.data import write_size
from services.validate.check import check
from shared.events import JobSpec
from shared.settings import ValidationSettings

BASE_MB, ROW_BYTES = 200, 64
"""What is allowed: so many MB, and so many bytes a row."""
EVERY = 0.1
"""Seconds between two looks at the memory."""


@dataclass(frozen=True)
class Peak:
    """`size` and `peak` in MB."""

    size: float
    rows: int
    peak: float

    @property
    def allowed(self) -> float:
        return BASE_MB + ROW_BYTES * self.rows / 1e6


def peaks(sizes: list[int], folder: Path) -> list[Peak]:
    """The peak for files of these sizes in MB."""
    found = []
    for size in sizes:
        path = write_size(folder / "rows.jsonl", size * 10**6)
        found.append(_peak(path))
        path.unlink()
    return found


def _peak(path: Path) -> Peak:
    command = [sys.executable, "-m", "benchmarks.validate.memory", str(path)]
    most = 0
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stdout=said) as process:
        while True:
            most = max(most, sum(map(_resident, [process.pid, *_children(process.pid)])))
            try:
                process.wait(EVERY)
                break
            except subprocess.TimeoutExpired:
                continue
        assert process.returncode == 0
        said.seek(0)
        return Peak(path.stat().st_size / 1e6, int(said.read()), most / 1e6)


def _resident(process: int) -> int:
    """Bytes of a process in memory; pages that it shares with others count in part."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:  # it has ended
        return 0
    return int(found[1]) * 1024 if found else 0


def _children(process: int) -> list[int]:
    try:
        files = list(Path(f"/proc/{process}/task").glob("*/children"))
        return [int(child) for file in files for child in file.read_text().split()]
    except OSError:
        return []


def draw(found: list[Peak], path: Path) -> None:
    """A picture of peaks and of what is allowed, by the number of rows."""
    import matplotlib  # noqa: PLC0415  slow to load

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(7, 4))
    rows = [one.rows / 1e6 for one in found]
    axes.plot(rows, [one.peak for one in found], marker="o", label="measured")
    label = f"allowed: {BASE_MB} MB + {ROW_BYTES} bytes a row"
    axes.plot(rows, [one.allowed for one in found], linestyle="--", label=label)
    axes.set(xlabel="million rows of about 750 bytes", ylabel="MB at most", ylim=(0, None), title="Memory of a check")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def as_json(found: list[Peak]) -> list[dict[str, float]]:
    return [asdict(one) | {"allowed": one.allowed} for one in found]


if __name__ == "__main__":
    report = check(Path(sys.argv[1]), spec=JobSpec(), base_location=None, limits=ValidationSettings())
    assert report.ok
    print(report.training.rows if report.training else 0)
