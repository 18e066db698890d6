"""Whether a faster way to train learns as well: `python -m benchmarks.quality [--base .cache/smollm2]`.

The demo's dataset (examples/support.jsonl, split as its job splits it) is trained on with each mode and each seed,
through the engine as a job runs it, without early stopping. The seed decides the adapter's first weights and the order
of the rows; all modes see the same. The modes: `bf16`, `nf4`, `fp8`, by the quantization of the base, with several
documents in a row, and `bf16-unpacked`, `nf4-unpacked`, `fp8-unpacked`, with one. `-float32` or `-bfloat16` behind a
mode is what it computes in on a CPU; without them the engine chooses. A mode that fails is a row that says why.

It draws the losses of training and validation as one picture (a line for the mean of the seeds, a band from the lowest
to the highest), and prints the validation loss at the end: mean and standard deviation over the seeds, and the distance
of the mean from that of the reference, `bf16` or the one that `--reference` names. That is noise if it is at most two
standard errors of the difference of two such means, 2 · s · √(2/n), with s of the n seeds of the reference. `by seed`
is the largest distance from the run of the reference with the same seed.

`python -m examples.smollm2` makes the base. `--base .cache/tiny-base --modes nf4,bf16 --steps 2` tries the calls on a
CPU; `--modes nf4-float32,nf4-bfloat16 --reference nf4-float32` compares what a CPU computes in.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import statistics
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATASET = Path(__file__).parents[1] / "examples" / "support.jsonl"
REFERENCE = "bf16"
QUANTIZATION = {"bf16": "none", "nf4": "nf4", "fp8": "fp8"}
USUAL = (*QUANTIZATION, *(f"{name}-unpacked" for name in QUANTIZATION))
COMPUTE = ("float32", "bfloat16")
MODES = (*USUAL, *(f"{mode}-{compute}" for mode in USUAL for compute in COMPUTE))
Curve = list[tuple[int, float]]
"""Steps, and the loss at each."""


@dataclass(frozen=True)
class Trained:
    """The curves of one run. `seconds`: how long it took."""

    train: Curve
    valid: Curve
    seconds: float

    @property
    def final(self) -> float:
        """The validation loss at the end."""
        return self.valid[-1][1]


Found = dict[str, dict[int, Trained]]
"""The runs, by mode and seed."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=Path(".cache/smollm2"), help="the folder of the base")
    parser.add_argument("--modes", default=",".join(USUAL), help="with commas between them (default: all of a GPU)")
    parser.add_argument("--reference", default=REFERENCE, choices=MODES, help=f"default {REFERENCE}", metavar="MODE")
    parser.add_argument("--seeds", default="1,2,3", help="with commas between them (default 1,2,3)")
    parser.add_argument("--epochs", type=int, default=3, help="default 3, which are 168 steps")
    parser.add_argument("--steps", type=int, help="so many steps of one epoch instead, to try the calls")
    parser.add_argument("--json", type=Path, help="write curves and verdicts to this file, after each run")
    parser.add_argument("--picture", type=Path, help="draw the curves to this PNG file")
    options = parser.parse_args()
    modes, seeds = options.modes.split(","), [int(seed) for seed in options.seeds.split(",")]
    if unknown := sorted(set(modes) - set(MODES)):
        parser.error(f"there is no mode {', '.join(unknown)}; there are {', '.join(MODES)}")
    if not (options.base / "config.json").is_file():
        parser.error(
            f"{options.base} is not the folder of a base: `python -m examples.smollm2 {options.base}` makes one"
        )
    found: Found = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = split(folder, options.steps)
        for seed in seeds:  # all modes of a seed first: what is there when the time is over can be compared
            for mode in (each for each in modes if each not in failed):
                try:
                    found.setdefault(mode, {})[seed] = trained(mode, seed, options, folder)
                except Exception as error:
                    traceback.print_exc()
                    failed[mode] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
                    print(f"{mode}, seed {seed}: failed", file=sys.stderr, flush=True)
                else:
                    run = found[mode][seed]
                    print(f"{mode}, seed {seed}: {run.final:.4f} in {run.seconds:.0f} s", file=sys.stderr, flush=True)
                save(options, rows, found, failed)
    print("\n".join(table(found, failed, options.reference)))


def split(folder: Path, steps: int | None) -> dict[str, int]:
    """Write the dataset's rows as a job has them; return how many. `steps`: only so many batches to train on, and
    one to validate."""
    from services.validate.check import examine, write_splits  # noqa: PLC0415
    from services.validate.reader import Source  # noqa: PLC0415
    from services.validate.scan import ScanControl  # noqa: PLC0415
    from shared.events import JobSpec  # noqa: PLC0415
    from shared.settings import ValidationSettings  # noqa: PLC0415

    source, control = Source(DATASET, DATASET.name), ScanControl()
    examined = examine(source, None, spec=JobSpec(), tokenizer=None, limits=ValidationSettings(), control=control)
    write_splits(examined, source, None, folder, control)
    if steps is not None:
        for part, most in (("train", 8 * steps), ("validation", 8)):
            file = folder / f"{part}.jsonl"
            file.write_text("".join(file.read_text().splitlines(keepends=True)[:most]))
    return {name: len((folder / f"{name}.jsonl").read_text().splitlines()) for name in ("train", "validation")}


def trained(mode: str, seed: int, options: argparse.Namespace, folder: Path) -> Trained:
    """A run of the engine, in this process."""
    import torch  # noqa: PLC0415

    from services.trainer.domain.plan import Plan  # noqa: PLC0415
    from services.trainer.engine.report.reporter import Reporter  # noqa: PLC0415
    from services.trainer.engine.run import run  # noqa: PLC0415

    quantization, *changes = mode.split("-")
    plan = Plan.model_validate(
        {
            "job_id": "ftjob-benchmark",
            "model": "benchmark",
            "base": {"id": "benchmark", "location": str(options.base)},
            "train": str(folder / "train.jsonl"),
            "validation": str(folder / "validation.jsonl"),
            "hyperparameters": {
                "n_epochs": 1 if options.steps else options.epochs,
                "batch_size": 8,
                "early_stopping_patience": 0,
            },
            "lora": {"quantization": QUANTIZATION[quantization]},
            "packed": "unpacked" not in changes,
            "compute": next((name for name in COMPUTE if name in changes), None),
            "seed": seed,
            "checkpoint_every": 10_000,
            "eval_every": 1 if options.steps else 14,  # four times an epoch
        }
    )
    out = folder / f"{mode}-{seed}"
    out.mkdir()
    reporter, began = Reporter(out, events=False), time.monotonic()
    try:
        with (out / "log").open("w") as log, contextlib.redirect_stdout(log):
            run(plan, out, reporter, lambda: False)
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    rows = reporter.rows()
    return Trained(
        train=[(row.step, row.train_loss) for row in rows if row.train_loss is not None],
        valid=[(row.step, _valid(row)) for row in rows if row.valid_loss is not None],
        seconds=time.monotonic() - began,
    )


def _valid(row: Any) -> float:
    """On all rows, where they were measured."""
    return float(row.valid_loss if row.full_valid_loss is None else row.full_valid_loss)


@dataclass(frozen=True)
class Verdict:
    """The validation loss at the end of a mode's runs, and its distance from the reference's. None: not known, because
    the reference, or a second seed, is missing.

    `distance`: of the means. `allowed`: how large it may be by noise. `by_seed`: the largest of runs with one seed.
    """

    seeds: int
    mean: float
    spread: float | None
    distance: float | None = None
    allowed: float | None = None
    by_seed: float | None = None

    @property
    def within_noise(self) -> bool | None:
        if self.distance is None or self.allowed is None:
            return None
        return abs(self.distance) <= self.allowed


def verdict(runs: dict[int, Trained], reference: dict[int, Trained]) -> Verdict:
    """Of the runs of one mode, by seed. Only seeds that both have are compared."""
    finals = [run.final for run in runs.values()]
    spread = statistics.stdev(finals) if len(finals) > 1 else None
    mean = statistics.mean(finals)
    both = sorted(runs.keys() & reference.keys())
    if runs is reference or not both:
        return Verdict(len(finals), mean, spread)
    distances = [runs[seed].final - reference[seed].final for seed in both]
    allowed = None
    if len(both) > 1:
        noise = statistics.stdev(reference[seed].final for seed in both)
        allowed = 2 * noise * math.sqrt(2 / len(both))
    return Verdict(len(finals), mean, spread, statistics.mean(distances), allowed, max(distances, key=abs))


def table(found: Found, failed: dict[str, str], reference: str = REFERENCE) -> list[str]:
    """The lines of the table."""
    width = max(14, *map(len, found), *map(len, failed))
    title = f"{'mode':{width}} {'seeds':>5} {'valid loss':>10} {'± s':>7} {'distance':>8} {'allowed':>8} {'by seed':>8}"
    lines = [f"{title}  within the noise of the seeds of {reference}"]
    for mode, runs in found.items():
        made = verdict(runs, found.get(reference, {}))
        answer = {None: "-", True: "yes", False: "no"}[made.within_noise]
        lines.append(
            f"{mode:{width}} {made.seeds:5} {made.mean:10.4f} {_short(made.spread):>7} "
            f"{_short(made.distance, sign='+'):>8} {_short(made.allowed):>8} {_short(made.by_seed, sign='+'):>8}"
            f"  {answer}"
        )
    return [*lines, *(f"{mode:{width}} failed: {why}" for mode, why in failed.items())]


def _short(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.4f}"


def save(options: argparse.Namespace, rows: dict[str, int], found: Found, failed: dict[str, str]) -> None:
    """Write the file and the picture of what there is so far."""
    if options.json:
        modes = {
            mode: {
                "verdict": {
                    **vars(made := verdict(runs, found.get(options.reference, {}))),
                    "within_noise": made.within_noise,
                },
                "runs": {str(seed): vars(run) for seed, run in runs.items()},
            }
            for mode, runs in found.items()
        }
        document = {"base": options.base.name, "rows": rows, "modes": modes, "failed": failed}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.picture and found:
        draw(found, f"{options.base.name}, {rows['train']} rows", options.picture)


def draw(found: Found, title: str, path: Path) -> None:
    """A line for the mean of each mode, and a band for its seeds: of training (mean of the steps between validations)
    and validation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 4.5), dpi=120)
    FigureCanvasAgg(figure)
    sides = figure.subplots(1, 2)
    for number, (mode, runs) in enumerate(found.items()):
        look = {"color": f"C{MODES.index(mode) % len(QUANTIZATION) if mode in USUAL else number}", "label": mode}
        look["linestyle"] = "--" if mode.endswith("-unpacked") else "-"
        for axes, curves in zip(
            sides, ([_smooth(run) for run in runs.values()], [run.valid for run in runs.values()]), strict=True
        ):
            steps = [step for step, _ in curves[0]]
            every = [[loss for _, loss in points] for points in zip(*curves, strict=False)]
            axes.plot(steps, [statistics.mean(losses) for losses in every], zorder=3 + number, **look)
            axes.fill_between(steps, list(map(min, every)), list(map(max, every)), alpha=0.12, color=look["color"])
    for axes, name in zip(sides, ("training", "validation"), strict=True):
        axes.set_title(name)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
    sides[1].legend()
    figure.suptitle(f"{title}, {max(map(len, found.values()))} seeds: means, and bands from lowest to highest")
    figure.tight_layout()
    figure.savefig(path)


def _smooth(run: Trained) -> Curve:
    """The mean loss of the steps up to each validation."""
    means, last = [], 0
    for step, _ in run.valid:
        between = [loss for at, loss in run.train if last < at <= step]
        if between:
            means.append((step, statistics.mean(between)))
        last = step
    return means


if __name__ == "__main__":
    main()
