"""How fast the training engine is, on one GPU: `python -m benchmarks.train [--shape 8b] [--modes unsloth,nf4]`.

A base of random weights in the shape of a real one (speed does not depend on the weights), or the folder `--base`, is
tuned on documents of lognormal lengths, about 400 tokens on average and 2,048 at most, with LoRA of rank 16. Each mode
runs in a process of its own, which may take `--limit` seconds. Calls with the same `--folder` and `--json` make one
table. The rivals:

- `guide`: the recipe of the usual tutorial, in plain transformers and PEFT: nf4, padded micro-batches of 4 rows,
  gradient checkpointing, LoRA on q, k, v and o, paged 8-bit AdamW. The ratio `x guide` is against it.
- `trl`, `trl-lean`: TRL's SFTTrainer at its best: nf4, packed rows, attention within documents by torch's kernel,
  Liger's layers, LoRA on all linear layers; without gradient checkpointing, and with it.
- `unsloth`, `unsloth-lean`: Unsloth's nf4, packed rows, all linear layers; without checkpointing, and with its own. The
  ratio `x unsloth` is against the faster of the two.

And ours, as a job runs it, with LoRA on all linear layers:

- `nf4`, `bf16`, `fp8`: by the quantization of the base.
- `lean`: nf4 with recomputation from the start, which takes the least memory.

A step has `--batch` rows: with 20 about 8,192 tokens, which is what a step of TRL and Unsloth has (one row of so many
packed tokens; more rows with a larger batch). All see the same documents; ours alone leaves the 8 tokens of the prompt
out of the loss.

It prints real tokens per second (padding does not count) by the wall clock of the steps after the warm-up (ours has one
step more, which is not timed: `rivals/clock.py` says why), the ratios,
the share of the bound, and the peak of the GPU's memory in these steps. The bound is what the arithmetic alone takes at
the speed of a matrix product of this run: 4 FLOPs per frozen parameter in matrix products and token. A rival that is
not installed is a row that says so. On a CPU, `--shape tiny` tries the calls, all but Unsloth's.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.rivals.clock import Clock
from benchmarks.rivals.work import ALPHA, RANK, RATE, Work, write_base

SHAPES: dict[str, dict[str, Any]] = {
    "70b": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
            "num_key_value_heads": 8, "vocab_size": 128256},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 512},
}  # fmt: skip
"""Those of Llama 3.1 70B and 8B, Llama 3.2 1B and SmolLM2 135M, and one to try the calls with."""
Figures = dict[str, Any]
OURS: dict[str, dict[str, Any]] = {
    "nf4": {"lora": {"quantization": "nf4"}},
    "bf16": {"lora": {"quantization": "none"}},
    "fp8": {"lora": {"quantization": "fp8"}},
    "lean": {"lora": {"quantization": "nf4"}, "lean": True},
}
"""What the plan of each of our modes has."""
RIVALS: dict[str, tuple[str, dict[str, Any]]] = {
    "guide": ("guide", {}),
    "trl": ("trl", {"checkpointing": False}),
    "trl-lean": ("trl", {"checkpointing": True}),
    "unsloth": ("unsloth", {"checkpointing": False}),
    "unsloth-lean": ("unsloth", {"checkpointing": "unsloth"}),
}
"""The module below `rivals` of each, and what its `measure` is given."""
MODES = (*RIVALS, *OURS)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="8b", help="of a base of random weights")
    parser.add_argument("--base", type=Path, help="the folder of a base, instead of random weights")
    parser.add_argument("--modes", default=",".join(MODES), help="which, with commas between them (default: all)")
    parser.add_argument("--batch", type=int, default=20, help="rows per step (default 20, about 8,192 tokens)")
    parser.add_argument("--warm-up", type=int, default=5, help="steps that are not timed (default 5)")
    parser.add_argument("--steps", type=int, default=10, help="timed steps after the warm-up (default 10)")
    parser.add_argument("--limit", type=float, default=300, help="seconds that a mode may take (default 300)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=JSON",
                        help="change the plan of our modes, such as lora.r=32; may be given again")  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where base and documents are kept; made if it is not there")
    parser.add_argument(
        "--json",
        type=Path,
        help="keep the figures in this file; those of other modes that it has from the same "
        "base, device and steps are in the table, too",
    )
    parser.add_argument("--picture", type=Path, help="draw them to this PNG file")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a process of a mode is ended, too
    options.modes = options.modes.split(",")
    if unknown := sorted(set(options.modes) - set(MODES)):
        parser.error(f"there is no mode {', '.join(unknown)}; there are {', '.join(MODES)}")
    if options.base and not options.only and not (options.base / "config.json").is_file():
        parser.error(f"{options.base} is not the folder of a base: it has no config.json")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        base = options.base or folder / f"base-{options.shape}"
        work = Work(base.absolute(), folder.absolute(), options.batch, options.warm_up, options.steps)
        if options.only:
            (folder / f"{options.only}.json").write_text(json.dumps(measured(options.only, work, options)))
            return
        compare(work, options)


def compare(work: Work, options: argparse.Namespace) -> None:
    work.folder.mkdir(parents=True, exist_ok=True)
    for before in ("prepare", "bound"):  # in processes, too, so that this one has nothing of the GPU's memory
        bound = in_a_process(before, work, options)
        if "failed" in bound:
            sys.exit(f"{before}: {bound['failed']}")
    name = options.base.name if options.base else options.shape
    print(f"{bound['device']}, {name}: bf16 matrix product {bound['tflops']:.0f} TFLOP/s", flush=True)
    head = {"base": name, "device": bound["device"], "batch": work.batch, "warm_up": work.warm_up, "steps": work.steps}
    figures = earlier(options.json, head)
    for mode in options.modes:
        figures[mode] = in_a_process(mode, work, options)
        print(line(mode, figures, bound["tokens_per_second"]), file=sys.stderr, flush=True)
        if options.json:
            options.json.write_text(json.dumps({**head, "bound": bound, "modes": figures}, indent=2) + "\n")
    print(f"{'mode':12} {'tokens/s':>10} {'x guide':>8} {'x unsloth':>9} {'of bound':>9} {'peak GiB':>9}")
    for mode in figures:
        print(line(mode, figures, bound["tokens_per_second"]))
    if options.picture:
        draw(figures, bound["tokens_per_second"], f"{name} on {bound['device']}", options.picture)


def earlier(path: Path | None, head: dict[str, Any]) -> dict[str, Figures]:
    """The figures of other modes that the file has from a run with the same `head`."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        document = json.loads(path.read_text()) if path else {}
        if {name: document.get(name) for name in head} == head:
            return dict(document["modes"])
    return {}


def in_a_process(mode: str, work: Work, options: argparse.Namespace) -> Figures:
    """One mode in a fresh process. A mode that fails, or takes too long, is a row that says so."""
    result = work.folder / f"{mode}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.train", "--only", mode, "--folder", str(work.folder)]
    command += ["--shape", options.shape, "--base", str(work.base), "--batch", str(work.batch)]
    command += ["--warm-up", str(work.warm_up), "--steps", str(work.steps)]
    command += [word for each in options.set for word in ("--set", each)]
    began, log = time.monotonic(), work.folder / f"{mode}.log"
    environment = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", **os.environ}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment, process_group=0) as process,
    ):
        try:
            code = process.wait(options.limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # and what it has started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    print(f"{mode}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if result.is_file():
        figures: Figures = json.loads(result.read_text())
    elif code is None:
        figures = {"failed": f"took longer than {options.limit:.0f} s"}
    else:
        figures = {"failed": f"the process ended with {code}"}
    if "failed" in figures:
        print(log.read_text(errors="replace")[-3000:], file=sys.stderr, flush=True)
    return figures


def measured(mode: str, work: Work, options: argparse.Namespace) -> Figures:
    """The figures of one mode, in this process; or why there are none."""
    try:
        if mode == "prepare":
            return prepare(work, options.shape)
        if mode == "bound":
            return bound_of(work)
        if mode in OURS:
            return ours(mode, work, options.set)
        module, given = RIVALS[mode]
        figures: Figures = importlib.import_module(f"benchmarks.rivals.{module}").measure(work, **given)
        return figures
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and mode in RIVALS:
            return {"not_installed": error.name}
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}


def prepare(work: Work, shape: str) -> Figures:
    """Write the base, if it is not there, and the documents."""
    if not (work.base / "config.json").is_file():
        write_base(work.base, SHAPES[shape])
    work.write()
    return {}


def bound_of(work: Work) -> Figures:
    """How fast matrix products are here, and how many tokens a second that makes."""
    import torch  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(work.base))
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


def plan_of(mode: str, work: Work, changes: list[str]) -> dict[str, Any]:
    """The plan of one of our modes. `changes`: `lora.r=32`, the values in JSON, or as they stand."""
    plan: dict[str, Any] = {
        "job_id": "ftjob-benchmark",
        "model": "benchmark",
        "base": {"id": "benchmark", "location": str(work.base)},
        "format": "completion",
        "train": str(work.rows),
        "hyperparameters": {"n_epochs": 1, "batch_size": work.batch, "learning_rate": RATE},
        "checkpoint_every": 10_000,
        **OURS[mode],
    }
    plan["lora"] = {"r": RANK, "alpha": ALPHA, **plan["lora"]}
    for change in changes:
        field, _, value = change.partition("=")
        *rooms, last = field.split(".")
        inside = plan
        for room in rooms:
            inside = inside.setdefault(room, {})
        with contextlib.suppress(ValueError):
            value = json.loads(value)
        inside[last] = value
    return plan


def ours(mode: str, work: Work, changes: list[str]) -> Figures:
    """A run of the engine, as the trainer service starts it."""
    from services.trainer.domain.plan import Plan  # noqa: PLC0415
    from services.trainer.engine.messages import PhaseBegan, StepRow  # noqa: PLC0415
    from services.trainer.engine.report.reporter import Reporter  # noqa: PLC0415
    from services.trainer.engine.run import run  # noqa: PLC0415

    clock, fits = Clock(work.warm_up, work.steps, known=True), []

    class Ends(Reporter):
        def step(self, row: StepRow) -> None:
            clock.step(row.tokens)
            super().step(row)

        def send(self, message: Any) -> None:
            if isinstance(message, PhaseBegan) and message.phase == "fit":
                fits.append(message.fields())
            super().send(message)

    out = work.folder / mode
    out.mkdir(exist_ok=True)
    result = run(Plan.model_validate(plan_of(mode, work, changes)), out, Ends(out, events=False), lambda: False)
    chosen = json.loads((out / "hyperparameters.json").read_text())
    return clock.figures(last_loss=result.train_loss, fit=fits, chosen=chosen)


def line(mode: str, figures: dict[str, Figures], bound: float) -> str:
    """A row of the table."""
    found = figures[mode]
    if "not_installed" in found:
        return f"{mode:12} not installed ({found['not_installed']})"
    if "failed" in found:
        return f"{mode:12} failed: {found['failed']}"
    speed, peak = found["tokens_per_second"], found["peak_gib"]
    ratios = [f"{speed / rival:.2f}" if rival else "-" for rival in (fastest(figures, "guide"), unsloth(figures))]
    memory = "-" if peak is None else f"{peak:.1f}"
    return f"{mode:12} {speed:10,.0f} {ratios[0]:>8} {ratios[1]:>9} {speed / bound:9.1%} {memory:>9}"


def fastest(figures: dict[str, Figures], *modes: str) -> float | None:
    """Tokens per second of the fastest of those modes that were measured."""
    return max((figures[each]["tokens_per_second"] for each in modes if "tokens_per_second" in figures.get(each, {})),
               default=None)  # fmt: skip


def unsloth(figures: dict[str, Figures]) -> float | None:
    return fastest(figures, "unsloth", "unsloth-lean")


def draw(figures: dict[str, Figures], bound: float, title: str, path: Path) -> None:
    """A bar for each mode, and a line at the bound."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    found = {mode: each["tokens_per_second"] for mode, each in figures.items() if "tokens_per_second" in each}
    figure = Figure(figsize=(7.5, 1.2 + 0.4 * len(found)), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = ["tab:blue" if mode in OURS else "tab:grey" for mode in found]
    bars = axes.barh(list(found), list(found.values()), color=colours)
    peaks = [figures[mode]["peak_gib"] for mode in found]
    labels = [f"{speed:,.0f}" + ("" if peak is None else f"   {peak:.1f} GiB")
              for speed, peak in zip(found.values(), peaks, strict=True)]  # fmt: skip
    axes.bar_label(bars, labels, padding=4)
    axes.axvline(bound, color="black", linestyle="--", linewidth=1, label="bound of the bf16 matrix products")
    axes.set_xlim(0, 1.25 * max(bound, *found.values(), 0) if found else None)
    axes.set_xlabel("tokens per second")
    axes.set_title(title)
    axes.invert_yaxis()
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
