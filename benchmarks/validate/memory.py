"""The most memory that a check needs, for files of several sizes, each in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.validate.data import write_size
from benchmarks.validate.ways import ours

BASE_MB, ROW_BYTES = 200, 64
"""What is allowed: so many MB, and so many bytes a row."""


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
        command = [sys.executable, "-m", "benchmarks.validate.memory", str(path)]
        said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found.append(Peak(path.stat().st_size / 1e6, said["rows"], said["peak"]))
        path.unlink()
    return found


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
    checked = ours(Path(sys.argv[1]))
    # not `ru_maxrss`, which a process inherits from the one that started it
    most = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert most is not None, "Linux says it"
    print(json.dumps({"rows": checked, "peak": int(most[1]) * 1024 / 1e6}))
