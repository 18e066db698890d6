"""How fast the training engine is: `python -m benchmarks.train [--shape 8b] [--modes guide,nf4,bf16]`, on one GPU.

A base of random weights in the shape of a real one (speed does not depend on the weights) is tuned on documents of
lognormal lengths, about 400 tokens on average and 2,048 at most. Each mode runs in a process of its own:

- `guide`: the recipe of the usual tutorial, in plain transformers and PEFT: nf4, padded batches of 4 rows, 4 of them a
  step, gradient checkpointing, LoRA on q, k, v and o, paged 8-bit AdamW. It is the rival that ratios are against.
- `nf4`, `bf16`: this engine as a job runs it, with LoRA on all linear layers.

It prints real tokens per second (padding does not count) of the steps after the warm-up, the ratio to `guide`, the
share of the bound, and the peak of the GPU's memory. The bound is what the arithmetic alone takes at the speed of a
matrix product of this run: 4 FLOPs per frozen parameter in matrix products and token. On a CPU, `--shape tiny` tries
the calls.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import rivals

SHAPES: dict[str, dict[str, Any]] = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 512},
}  # fmt: skip
"""Those of Llama 3.1 8B, Llama 3.2 1B and SmolLM2 135M, and one to try the calls with."""
WARM_UP = 3
BATCH = 16
"""Rows per step, of every mode."""
LONGEST = 2048


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--modes", default="guide,nf4,bf16", help="which, with commas between them")
    parser.add_argument("--steps", type=int, default=10, help="timed steps after the warm-up")
    parser.add_argument("--folder", type=Path, help="where base and rows are kept; made if they are not there")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.add_argument("--picture", type=Path, help="draw them to this PNG file")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.folder, options.steps)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        prepare(folder, options.shape, options.steps)
        figures = {mode: in_a_process(mode, folder, options) for mode in ("bound", *options.modes.split(","))}
    bound = figures.pop("bound")
    print(f"{bound['device']}, {options.shape}: bf16 matrix product {bound['tflops']:.0f} TFLOP/s")
    table(figures, bound["tokens_per_second"])
    if options.json:
        options.json.write_text(json.dumps({"shape": options.shape, "bound": bound, "modes": figures}, indent=2) + "\n")
    if options.picture:
        draw(figures, bound["tokens_per_second"], f"{options.shape} on {bound['device']}", options.picture)


def in_a_process(mode: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One mode in a fresh process. A mode that fails is a row that says so."""
    command = [sys.executable, "-m", "benchmarks.train", "--only", mode, "--folder", str(folder)]
    began = time.monotonic()
    environment = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", **os.environ}
    done = subprocess.run(
        [*command, "--steps", str(options.steps)], capture_output=True, text=True, check=False, env=environment
    )
    print(f"{mode}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        print(done.stderr[-3000:], file=sys.stderr, flush=True)
        return {"failed": last[:300]}
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def measure(mode: str, folder: Path, steps: int) -> dict[str, Any]:
    """The figures of one mode, in this process."""
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "bound": lambda: bound_of(folder),
        "guide": lambda: rivals.guide(folder / "base", documents(steps), BATCH, WARM_UP),
        "nf4": lambda: ours(folder, "nf4", steps),
        "bf16": lambda: ours(folder, "none", steps),
    }
    return measures[mode]()


def documents(steps: int) -> list[int]:
    """The lengths of the rows, in tokens: enough for the warm-up and the timed steps."""
    drawn = random.Random(1)
    count = BATCH * (WARM_UP + steps)
    return [int(min(LONGEST, max(48, math.exp(drawn.gauss(5.7, 0.8))))) for _ in range(count)]


def prepare(folder: Path, shape: str, steps: int) -> None:
    """Write the base and the rows."""
    if not (folder / "base" / "config.json").is_file():
        rivals.write_base(folder / "base", SHAPES[shape], LONGEST)
    drawn = random.Random(2)
    with (folder / "rows.jsonl").open("w") as file:
        for length in documents(steps):  # a letter is a token; the end is one more
            text = "".join(drawn.choices(string.ascii_letters, k=length - 1))
            file.write(json.dumps({"prompt": text[:8], "completion": text[8:]}) + "\n")


def bound_of(folder: Path) -> dict[str, Any]:
    """How fast matrix products are here, and how many tokens a second that makes."""
    import torch  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder / "base"))
    parameters = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    cuda = torch.cuda.is_available()
    size, device = (8192, "cuda") if cuda else (512, "cpu")
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        left @ right
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    flops = 2 * size**3 / statistics.median(seconds[5:])
    name = torch.cuda.get_device_name() if cuda else "CPU"
    return {"device": name, "tflops": flops / 1e12, "tokens_per_second": flops / (4 * parameters)}


def ours(folder: Path, quantization: str, steps: int) -> dict[str, Any]:
    """A run of the engine, as the trainer service starts it."""
    import torch  # noqa: PLC0415

    from services.trainer.domain.plan import Plan  # noqa: PLC0415
    from services.trainer.engine.report.reporter import Reporter  # noqa: PLC0415
    from services.trainer.engine.run import run  # noqa: PLC0415

    plan = Plan.model_validate(
        {
            "job_id": "ftjob-benchmark",
            "model": "benchmark",
            "base": {"id": "benchmark", "location": str(folder / "base")},
            "format": "completion",
            "train": str(folder / "rows.jsonl"),
            "hyperparameters": {"n_epochs": 1, "batch_size": BATCH},
            "lora": {"quantization": quantization, "r": 16, "alpha": 32},
            "checkpoint_every": 10_000,
        }
    )
    out = folder / quantization
    out.mkdir(exist_ok=True)
    reporter = Reporter(out, events=False)
    run(plan, out, reporter, lambda: False)
    timed = reporter.rows()[WARM_UP : WARM_UP + steps]
    tokens = sum(row.tokens for row in timed)
    return {
        "tokens_per_second": tokens / sum(row.tokens / row.tokens_per_second for row in timed),
        "tokens_per_step": tokens / len(timed),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
        "last_loss": timed[-1].train_loss,
    }


def table(figures: dict[str, dict[str, Any]], bound: float) -> None:
    """Print a line for each mode."""
    rival = figures.get("guide", {}).get("tokens_per_second")
    print(f"{'mode':8} {'tokens/s':>10} {'x guide':>8} {'of bound':>9} {'peak GiB':>9}")
    for mode, found in figures.items():
        if "failed" in found:
            print(f"{mode:8} failed: {found['failed']}")
            continue
        speed, peak = found["tokens_per_second"], found["peak_gib"]
        ratio = f"{speed / rival:8.2f}" if rival else f"{'-':>8}"
        memory = f"{peak:9.1f}" if peak is not None else f"{'-':>9}"
        print(f"{mode:8} {speed:10,.0f} {ratio} {speed / bound:9.1%} {memory}")


def draw(figures: dict[str, dict[str, Any]], bound: float, title: str, path: Path) -> None:
    """A bar for each mode, and a line at the bound."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    found = {mode: each["tokens_per_second"] for mode, each in figures.items() if "failed" not in each}
    figure = Figure(figsize=(7, 3.5), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    bars = axes.barh(list(found), list(found.values()))
    axes.bar_label(bars, fmt="{:,.0f}", padding=4)
    axes.axvline(bound, color="grey", linestyle="--", label="bound of the matrix products")
    axes.set_xlabel("tokens per second")
    axes.set_title(title)
    axes.invert_yaxis()
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
