"""For how long a training stops for a checkpoint: `python -m benchmarks.checkpoints [--base path/to/base]`.

It trains the same rows three times: almost without checkpoints, with each written at once, as long as training waits
for it, and with each copied and written by a thread, as the trainer does. `stops`: the time from the end of a step
until the next one may begin. `costs`: what the whole run takes longer, by checkpoint. That also counts steps that are
slower because files are written beside them, and is only as good as the machine is quiet. On a GPU the copy runs beside
the next step, so there `costs` is the figure to look at.

At the end, a run that is not timed compares what the thread has written with the state at that step.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from examples import tiny_base
from services.trainer.domain.plan import Plan
from services.trainer.engine import checkpoints
from services.trainer.engine.checkpoints import Tensors
from services.trainer.engine.loop import Loop
from services.trainer.engine.messages import StepRow
from services.trainer.engine.report.reporter import Reporter
from services.trainer.engine.run import run
from services.trainer.engine.writer import Writer


@dataclass(frozen=True)
class Measured:
    """One run. `stops`: seconds, of each checkpoint; `seconds`: of all steps; `size`: of one checkpoint, in bytes."""

    stops: list[float]
    seconds: float
    size: int


class AtOnce(Writer):
    """Training waits until the files are written."""

    def begin(self, work: Callable[[], None]) -> None:
        super().begin(work)
        self.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="a folder; by default the tiny base of the demo")
    parser.add_argument("--rows", type=Path, default=Path("examples/support.jsonl"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=8, help="steps between two checkpoints")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--quantization", choices=["nf4", "none"], default="nf4")
    parser.add_argument("--rounds", type=int, default=3, help="each run is made so often; medians count")
    options = parser.parse_args()
    options.base = options.base or tiny_base.ensure()
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    rows = options.rows.read_text().splitlines()
    train = folder / "train.jsonl"
    train.write_text("".join(rows[n % len(rows)] + "\n" for n in range(options.steps * options.batch)))
    kinds = {"none": (Writer, 10**6), "at once": (AtOnce, options.every), "beside": (Writer, options.every)}
    found: dict[str, list[Measured]] = {name: [] for name in kinds}
    for number in range(options.rounds):
        for name, (writer, every) in kinds.items():
            found[name].append(one(make_plan(options, train, every), folder / f"{name}-{number}", writer))
    bare = min(run.seconds for run in found["none"])
    size = found["beside"][0].size
    print(f"{options.base}, rank {options.rank}: a state of {size / 2**20:.1f} MiB, {options.steps} steps")
    print(f"{'written':10} {'checkpoints':>11} {'stops, median':>14} {'stops, longest':>15} {'costs':>9}")
    medians = {}
    for name in ("at once", "beside"):
        stops = [stop for each in found[name] for stop in each.stops]
        medians[name] = statistics.median(stops)
        costs = (min(each.seconds for each in found[name]) - bare) / len(found[name][0].stops)
        print(
            f"{name:10} {len(stops):11} {1000 * medians[name]:11.1f} ms {1000 * max(stops):12.1f} ms "
            f"{1000 * costs:6.0f} ms"
        )
    compared = compare(make_plan(options, train, options.every), folder / "compared")
    print(f"{compared} tensors that were written beside the training are those of their step")
    print(f"ratio of the medians: {medians['at once'] / medians['beside']:.1f} times shorter")


def make_plan(options: argparse.Namespace, train: Path, every: int) -> Plan:
    return Plan.model_validate(
        {
            "job_id": "benchmark",
            "model": "benchmark",
            "base": {"id": "benchmark", "location": str(options.base)},
            "train": str(train),
            "hyperparameters": {"n_epochs": 1, "batch_size": options.batch, "learning_rate": 1e-4},
            "lora": {"r": options.rank, "quantization": options.quantization},
            "max_lora_rank": options.rank,
            "checkpoint_every": every,
        }
    )


def one(plan: Plan, out: Path, writer: type[Writer]) -> Measured:
    """Make a run. The checkpoint after its last step is left out: no step waits for it."""
    out.mkdir()
    with timed(writer) as stops, contextlib.redirect_stdout(io.StringIO()):
        result = run(plan, out, Reporter(out, events=True), lambda: False)
    newest = out / "resume" / f"step-{result.steps}"
    size = sum(path.stat().st_size for path in newest.iterdir())
    return Measured(stops[:-1], result.seconds, size)


def compare(plan: Plan, out: Path) -> int:
    """Make a run, and compare each state in its files with the tensors as they were after its step. Returns how many
    tensors were compared.

    Raises:
        AssertionError: they differ.
    """
    out.mkdir()
    expected: dict[int, dict[str, Tensors]] = {}

    def note(loop: Loop, proceed: Callable[[], None]) -> None:
        live = checkpoints.live(loop.model, loop.stepper.optimizer)
        expected[loop.state.step] = {
            kind: {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}
            for kind, tensors in live.items()
        }
        proceed()

    with around_checkpoints(note), contextlib.redirect_stdout(io.StringIO()):
        run(plan, out, Reporter(out, events=True), lambda: False)
    count = 0
    for step, state in expected.items():
        written, _ = checkpoints.read(out / checkpoints.RESUME / f"step-{step}")
        for kind, tensors in state.items():
            assert written[kind].keys() == tensors.keys(), f"step {step}: {kind}"
            for name, tensor in tensors.items():
                assert bool((written[kind][name] == tensor).all()), f"step {step}: {kind} {name}"
                count += 1
    return count


@contextlib.contextmanager
def timed(writer: type[Writer]) -> Iterator[list[float]]:
    """Let runs within the block write by a `writer`, and note for how long each checkpoint stops them."""
    stops: list[float] = []

    def noted(loop: Loop, proceed: Callable[[], None]) -> None:
        if type(loop.writer) is not writer:
            loop.writer = writer()
        began = time.perf_counter()
        proceed()
        stops.append(time.perf_counter() - began)

    with around_checkpoints(noted):
        yield stops


@contextlib.contextmanager
def around_checkpoints(note: Callable[[Loop, Callable[[], None]], None]) -> Iterator[None]:
    """Let runs within the block call `note` for each checkpoint; it calls its second argument to make it."""
    checkpoint = Loop._checkpoint

    def noted(loop: Loop, row: StepRow) -> None:
        note(loop, lambda: checkpoint(loop, row))

    Loop._checkpoint = noted  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Loop._checkpoint = checkpoint  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
