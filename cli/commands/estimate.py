"""The command estimate: tokens, time, memory and money of a job before it is one, without a stack and without torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cli.commands.mine import as_rows
from cli.jobs.figures import GIB, duration
from cli.jobs.spec import build
from cli.jobs.submit import check_file
from cli.stack import state
from cli.stack.plan import absolute, base_of, is_set
from cli.stack.state import DEFAULT_STATE
from cli.target import StateOption
from cli.terminal import CliError, columns, err, out
from shared.errors import TransientError
from shared.settings import Settings, load_settings

if TYPE_CHECKING:
    from services.trainer.estimate.estimate import Estimate
    from services.validate.check import Examined
    from shared.events import JobSpec

PRICES_VARIABLE = "TUNESTREAM_PRICES"
CHOSEN = (
    "n_epochs",
    "batch_size",
    "learning_rate",
    "lora_r",
    "max_length",
    "quantization",
    "micro_tokens",
    "recompute",
)
PricesOption = Annotated[
    Path | None,
    typer.Option(envvar=PRICES_VARIABLE, help="A price file, JSON or YAML; by default the bundled example."),
]


def estimate(
    file: Annotated[Path | None, typer.Argument(help="The dataset, in any form that can be dropped.")] = None,
    base: Annotated[str | None, typer.Option(help="The base model: a folder or a hub id.")] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Plan for this device (h100, a100, l4, rtx4090, cpu, …), not for this machine.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="supervised or dpo; by default the rows decide.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the job, such as hyperparameters.n_epochs=2.")
    ] = None,
    hosted: Annotated[
        list[str] | None, typer.Option(help="A hosted model of the price file; may be repeated. By default all.")
    ] = None,
    prices: PricesOption = None,
    table: Annotated[
        bool, typer.Option("--table", help="Print what bases of usual sizes need, on which GPUs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
    folder: StateOption = DEFAULT_STATE,
) -> None:
    """Estimate tokens, time, memory and money of a job before it is submitted. No stack is needed."""
    if table:
        _table(as_json)
        return
    if file is None:
        raise CliError(
            "estimate needs a dataset", "`tunestream estimate FILE --base MODEL`, or --table for usual sizes"
        )
    check_file(file)
    spec = build(None, set_ or (), {"method": method})
    settings = load_settings()
    kept = state.load(absolute(folder))
    model, path = base_of(settings, kept, base, None)
    with (
        as_rows(file, spec.source) as rows,
        err.status("reading the base and the rows …") if err.is_terminal else nullcontext(),
    ):
        try:
            found = _estimate(
                rows, file, spec, settings, model, path or model, gpu, hosted, prices, _speeds(settings, folder)
            )
        except TransientError as error:
            raise CliError(str(error), "give the folder of a model with --base, or try again") from None
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _show(found, spec)


def _estimate(
    rows: Path,
    file: Path,
    spec: JobSpec,
    settings: Settings,
    model: str,
    location: str,
    gpu: str | None,
    hosted: list[str] | None,
    prices: Path | None,
    speeds: Path,
) -> Estimate:
    # transformers takes seconds, so it is not imported for the help text
    from services.trainer.engine.report.speeds import read  # noqa: PLC0415
    from services.trainer.estimate import devices  # noqa: PLC0415
    from services.trainer.estimate.estimate import estimate as plan  # noqa: PLC0415
    from services.trainer.estimate.prices import load as load_prices  # noqa: PLC0415
    from services.validate.reader import Source  # noqa: PLC0415
    from shared.base.reading import read_base  # noqa: PLC0415

    price_list = load_prices(prices)
    device = devices.named(gpu) if gpu else devices.here(settings.trainer.gpu)
    source = Source(rows, file.name)
    examined, kwargs = _examined(source, file, spec, settings, model, location)
    with _splits(examined, source) as (train, validation):
        return plan(
            train,
            validation,
            files=read_base(location, model),
            base=model,
            spec=spec,
            method=examined.report.method or "supervised",
            form=examined.report.format or "chat",
            max_length=examined.report.max_length,
            device=device,
            speeds=read(speeds),
            prices=price_list,
            hosted=hosted,
            template_kwargs=kwargs,
            max_lora_rank=settings.vllm.max_lora_rank,
        )


def _examined(
    source: Any, file: Path, spec: JobSpec, settings: Settings, model: str, location: str
) -> tuple[Examined, dict[str, Any]]:
    """The file as the validate stage sees it, and what the base's template is given."""
    from services.validate.check import examine  # noqa: PLC0415
    from services.validate.scan import ScanControl  # noqa: PLC0415
    from services.validate.tokenizer import load  # noqa: PLC0415

    tokenizer = load(location, model, settings.model.profile)
    examined = examine(source, None, spec=spec, tokenizer=tokenizer, limits=settings.validation, control=ScanControl())
    if (failed := examined.report.failure) is not None:
        raise CliError(failed.message, f"`tunestream check {file} --base {location}` lists all problems")
    return examined, dict(tokenizer.profile.chat_template_kwargs)


@contextmanager
def _splits(examined: Examined, source: Any) -> Iterator[tuple[Path, Path | None]]:
    """The splits that a job would be trained and validated on, in files."""
    from services.validate.check import write_splits  # noqa: PLC0415
    from services.validate.scan import ScanControl  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="tunestream-") as name:
        folder = Path(name)
        write_splits(examined, source, None, folder, ScanControl())
        validation = folder / "validation.jsonl"
        yield folder / "train.jsonl", validation if validation.stat().st_size else None


def _speeds(settings: Settings, folder: Path) -> Path:
    """Where the trainer of this machine keeps what trainings took."""
    from services.trainer.engine.report.speeds import NAME  # noqa: PLC0415

    own = settings.trainer.work_dir if is_set(settings, "trainer", "work_dir") else absolute(folder) / "trainer"
    return own / NAME


# --- printing -----------------------------------------------------------------------------------------------------


def _show(found: Estimate, spec: JobSpec) -> None:
    rows = "  ".join(f"{name} {split.examples:,} ({split.tokens:,} tokens)" for name, split in found.rows.items())
    facts = columns("estimate", "")
    facts.add_row("base", f"{found.base} ({found.parameters:,} parameters)")
    facts.add_row("device", found.device)
    facts.add_row("rows", rows + (f"  dropped {found.dropped:,}" if found.dropped else ""))
    facts.add_row("tokens", f"{found.tokens:,} in {found.steps:,} steps, {found.validated_tokens:,} validated")
    holds = f"; held by {', '.join(found.holds) or 'no GPU of the list'}"
    room = f"{found.memory_bytes / GIB:.1f} GiB at the peak, {found.free_bytes / GIB:.1f} are free{holds}"
    facts.add_row("memory", Text(room if found.fits else f"does not fit: {room}", style="" if found.fits else "red"))
    if found.training_seconds is not None and found.tokens_per_second is not None and found.seconds is not None:
        facts.add_row(
            "time",
            f"{duration(found.seconds)}: {duration(found.training_seconds)} of training at "
            f"{found.tokens_per_second:,.0f} tokens/s, {duration(found.other_seconds)} to load and save",
        )
    facts.add_row("speed", found.speed)
    out.print(facts)
    out.print()
    bill = columns("money", "amount", "1,000 answers", "why")
    for cost in found.costs:
        amount = "not known" if cost.amount is None else _money(cost.amount, cost.currency)
        answers = "" if cost.per_1000_answers is None else _money(cost.per_1000_answers, cost.currency)
        bill.add_row(cost.what, amount, answers, cost.reason)
    out.print(bill)
    out.print()
    chosen = columns("chosen", "value", "why")
    for name in CHOSEN:
        entry = found.hyperparameters.get(name)
        if isinstance(entry, dict):
            chosen.add_row(name, str(entry["value"]), str(entry["reason"]))
    out.print(chosen)
    for note in found.notes:
        out.print(Text(note, style="yellow"), soft_wrap=True)


def _money(amount: float, currency: str) -> str:
    return f"{amount:,.2f} {currency}" if amount >= 0.1 or not amount else f"{amount:.2g} {currency}"


def _table(as_json: bool) -> None:
    from services.trainer.estimate import table  # noqa: PLC0415

    lines = table.lines()
    if as_json:
        typer.echo(f"[{', '.join(line.model_dump_json() for line in lines)}]")
        return
    shown = columns("base", "method", "at least", "fastest", *table.COLUMNS)
    for line in lines:
        shown.add_row(line.size, line.method, *table.memory(line), *(table.cell(line.gpus[n]) for n in table.COLUMNS))
    out.print(shown)
    out.print(Text(table.EXPLAINED, style="dim"), soft_wrap=True)
