"""How well a training uses several GPUs: `python -m benchmarks.parallel [--mode sharded] [--gpus 2] [--shape 8b]`.

The engine is started as the trainer service starts it, on a base of random weights and documents of lognormal lengths
(`benchmarks.train` says which):

- `1`: on one GPU.
- `2, same batch`: on all of them, with as many rows in a step, so that each GPU has a part of them. The losses must be
  those of one GPU, to the rounding of the type that the base computes in.
- `2, rows x 2`: on all of them, with as many rows in a step for each GPU as before. That is what a large batch is for.

With `--mode sharded` the base is divided among the GPUs in two more trainings, `2, divided, same batch` and `2,
divided, rows x 2`, which are compared with the same GPU. A base that one GPU does not hold (`--shape 70b`) is a row
that says so in the first three, and the others have no ratio to `1`.

It prints real tokens per second (padding does not count) of the steps after the warm-up, the ratio to one GPU, how much
the losses differ from those of one GPU, and the peak of the first GPU's memory. On a machine without a GPU,
`--shape tiny` tries the calls, with processes on the CPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.rivals.work import Work, write_base
from benchmarks.train import SHAPES
from services.trainer.engine.messages import ExitCode

BATCH, WARM_UP = 20, 5
"""Rows of a step on one GPU, and steps that are not timed."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parallel", description=__doc__)
    parser.add_argument("--mode", choices=("data", "sharded"), default="data", help="data: each GPU holds the base")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--quantization", choices=("nf4", "fp8", "none"), default="none")
    parser.add_argument("--steps", type=int, default=10, help="timed steps after the warm-up")
    parser.add_argument("--folder", type=Path, help="where the base is kept; made if it is not there")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "base" / "config.json").is_file():
            write_base(folder / "base", SHAPES[options.shape])
        several = options.gpus
        found = {"1": train(folder, options, gpus=1, factor=1)}
        for divided in (False, True)[: 1 + (options.mode == "sharded")]:
            kind = f"{several}, divided" if divided else str(several)
            found[f"{kind}, same batch"] = train(folder, options, gpus=several, factor=1, divided=divided)
            found[f"{kind}, rows x {several}"] = train(folder, options, gpus=several, factor=several, divided=divided)
    table(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def train(
    folder: Path, options: argparse.Namespace, *, gpus: int, factor: int, divided: bool = False
) -> dict[str, Any]:
    """The figures of one training, with `factor` times as many rows in a step as usual. If the base does not fit,
    `failed` says so."""
    name = f"{gpus}-{factor}{'-divided' * divided}"
    work = Work(folder / "base", folder / f"rows-{factor}", BATCH * factor, WARM_UP, options.steps)
    work.folder.mkdir(exist_ok=True)
    work.write()
    plan = {
        "job_id": "ftjob-benchmark",
        "model": "benchmark",
        "base": {"id": "benchmark", "location": str(folder / "base")},
        "format": "completion",
        "train": str(work.rows),
        "hyperparameters": {"n_epochs": 1, "batch_size": work.batch},
        "lora": {"quantization": options.quantization, "r": 16, "alpha": 32, "dropout": 0.0},
        "checkpoint_every": 10_000,
        "gpus": gpus,
        "switches": {"sharded": divided},
    }
    (folder / f"{name}.json").write_text(json.dumps(plan))
    command = [sys.executable, "-m", "services.trainer.engine", str(folder / f"{name}.json"), str(folder / name)]
    done = subprocess.run([*command, "--events"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == ExitCode.WRONG_INPUT:
        error = json.loads((folder / name / "error.json").read_bytes())
        if error["code"] == "out_of_memory":
            print(f"{name}: {error['message']}", file=sys.stderr)
            return {"failed": error["code"]}
    if done.returncode:
        raise SystemExit(f"{name}: exit code {done.returncode}\n{done.stdout[-2000:]}")
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    timed = rows[WARM_UP:]
    return {
        "tokens_per_second": sum(row["tokens"] for row in timed)
        / sum(row["tokens"] / row["tokens_per_second"] for row in timed),
        "losses": [row["train_loss"] for row in rows],
        "peak_gib": max(event.get("peak_memory_bytes", 0) for event in events) / 2**30,
        "fit": next((found for event in events if (found := fit(event))), "-"),
    }


def fit(event: dict[str, Any]) -> str | None:
    """What the message says of the memory; None: nothing."""
    if event.get("phase") != "fit":
        return None
    return f"{event['micro_tokens']} tokens, activations {'recomputed' if event['recompute'] else 'kept'}"


def table(found: dict[str, dict[str, Any]]) -> None:
    """Print a line for each training."""
    one = found["1"]
    print(f"{'GPUs':24} {'tokens/s':>10} {'x one':>6} {'losses differ by':>17} {'peak GiB':>9}  fit")
    for name, each in found.items():
        if "failed" in each:
            print(f"{name:24} {each['failed']}")
            continue
        ratio = apart = "-"
        if "failed" not in one:
            ratio = f"{each['tokens_per_second'] / one['tokens_per_second']:.2f}"
        if name.endswith("same batch") and "failed" not in one:
            pairs = zip(each["losses"], one["losses"], strict=True)
            apart = f"{max(abs(loss - other) / other for loss, other in pairs):.1e}"
        speed, peak = each["tokens_per_second"], each["peak_gib"]
        print(f"{name:24} {speed:10,.0f} {ratio:>6} {apart:>17} {peak:9.1f}  {each['fit']}")


if __name__ == "__main__":
    main()
