"""How near the estimate before a job is to what the job takes: `tunestream estimate` beside real trainings.

    python -m benchmarks.estimate --base .cache/tiny-base [--file examples/support.jsonl] [--runs 3]

Each run is the training process itself on the splits that a job would have. The first estimate is the engine's plan
without anything measured; the later ones know what the runs before took on this machine. The rival is the guess in the
report of the validate stage, which knows nothing but the tokens. A ratio of 1 is right; 0.8 to 1.2 is wanted. The
machine must be calm: what else it computes is not in any estimate.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from services.trainer.engine.messages import TrainingResult
from services.trainer.engine.report import speeds
from services.trainer.estimate import devices, prices
from services.trainer.estimate.estimate import Estimate, estimate
from services.validate.check import Examined, examine, write_splits
from services.validate.reader import Source
from services.validate.scan import ScanControl
from services.validate.tokenizer import load
from shared.base.reading import read_base
from shared.events import JobSpec
from shared.settings import ValidationSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, type=Path)
    parser.add_argument("--file", default=Path("examples/support.jsonl"), type=Path)
    parser.add_argument("--runs", default=3, type=int)
    parser.add_argument("--epochs", type=int, help="by default as the trainer chooses")
    options = parser.parse_args()
    spec = JobSpec.model_validate({"hyperparameters": {"n_epochs": options.epochs or "auto"}})
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        examined = _splits(options.file, options.base, spec, folder)
        for number in range(options.runs):
            planned = _estimate(examined, options.base, spec, folder)
            load, computed = os.getloadavg()[0], _computed()
            result = _train(examined, options.base, spec, folder, number)
            _print(number, planned, examined, result, load, _computed() - computed)


def _computed() -> float:
    """Seconds that the cores have computed for the trainings so far: beside other work, they wait for longer."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _splits(file: Path, base: Path, spec: JobSpec, folder: Path) -> Examined:
    source, control = Source(file, file.name), ScanControl()
    tokenizer = load(str(base), base.name)
    found = examine(source, None, spec=spec, tokenizer=tokenizer, limits=ValidationSettings(), control=control)
    write_splits(found, source, None, folder, control)
    return found


def _estimate(examined: Examined, base: Path, spec: JobSpec, folder: Path) -> Estimate:
    report = examined.report
    assert report.method is not None and report.format is not None
    return estimate(
        folder / "train.jsonl",
        folder / "validation.jsonl",
        files=read_base(str(base), base.name),
        base=base.name,
        spec=spec,
        method=report.method,
        form=report.format,
        max_length=report.max_length,
        device=devices.here(None),
        speeds=speeds.read(folder / speeds.NAME),
        prices=prices.load(None),
        hosted=(),
    )


def _train(examined: Examined, base: Path, spec: JobSpec, folder: Path, number: int) -> TrainingResult:
    plan = {
        "job_id": f"run-{number}",
        "model": f"run-{number}",
        "base": {"id": base.name, "location": str(base)},
        "method": examined.report.method,
        "format": examined.report.format,
        "train": str(folder / "train.jsonl"),
        "validation": str(folder / "validation.jsonl"),
        "max_length": examined.report.max_length,
        "hyperparameters": spec.hyperparameters.model_dump(mode="json"),
        "speeds": str(folder / speeds.NAME),
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    out = folder / f"out-{number}"
    command = [sys.executable, "-m", "services.trainer.engine", str(folder / "plan.json"), str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return TrainingResult.model_validate_json((out / "result.json").read_bytes())


def _print(
    number: int, planned: Estimate, examined: Examined, result: TrainingResult, load: float, computed: float
) -> None:
    rival = examined.report.estimate
    assert planned.training_seconds is not None and result.peak_memory_bytes is not None and rival is not None
    share = result.steps / result.total_steps
    seconds, memory = planned.training_seconds * share, planned.memory_bytes
    print(
        f"run {number + 1}: time {seconds:.1f} s estimated, {result.seconds:.1f} s taken, "
        f"ratio {seconds / result.seconds:.2f} (validate's guess: {rival.seconds / result.seconds:.2f})  "
        f"memory {memory / 2**20:.0f} MiB estimated, {result.peak_memory_bytes / 2**20:.0f} MiB used, "
        f"ratio {memory / result.peak_memory_bytes:.2f}  "
        f"computed for {computed:.0f} s  load {load:.1f} before, {os.getloadavg()[0]:.1f} after  [{planned.speed}]",
        flush=True,
    )


if __name__ == "__main__":
    main()
