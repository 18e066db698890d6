"""The command synthesize: a dataset from scenarios and a strong model."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.text import Text

from cli.terminal import INTERRUPTED, err, out

if TYPE_CHECKING:
    from cli.synthesize.local import Files
    from services.ingest.domain.synthesis.history import History
    from services.ingest.domain.synthesis.spec import SynthesisSpec
    from services.ingest.synthesis.run import Outcome

SECONDS_A_LINE = 10.0
"""Between two lines of progress where there is no terminal."""


def synthesize(
    spec: Annotated[Path, typer.Argument(help="What to make, as YAML: task, scenarios, count, model, budget, …")],
    out_file: Annotated[
        Path | None, typer.Option("--out", help="The dataset; by default NAME.jsonl beside NAME.synthesis.yaml.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, the first prompts and the most it can cost; ask nothing.")
    ] = False,
) -> None:
    """Make a dataset with a strong model behind an OpenAI-compatible endpoint: queries, answers, and a judge.

    Every reply is kept at once beside the dataset (NAME.synthesis.journal): a run that ends early goes on with the same
    command. Ctrl-C waits for the replies under way; only kill -9 loses those, and they count against the budget.
    """
    from cli.synthesize.local import Files  # noqa: PLC0415  # imports the openai client: a second

    files = Files.of(spec, out_file)
    if dry_run:
        _preview(files)
    else:
        _run(files)


def _preview(files: Files) -> None:
    from cli.synthesize import preview  # noqa: PLC0415
    from services.ingest.domain.synthesis.history import History  # noqa: PLC0415
    from services.ingest.synthesis.journal import read  # noqa: PLC0415

    wanted, seeds = files.load()
    history = History()
    if files.journal.exists():
        history = read(files.journal.read_bytes().split(b"\n")[:-1], str(files.journal))
    out.print(preview.rows(wanted))
    for panel in preview.first_prompts(wanted, seeds):
        out.print(panel)
    for line in preview.costs(wanted, seeds, history):
        out.print(Text(line), soft_wrap=True)


def _run(files: Files) -> None:
    from cli.synthesize.local import synthesize as make  # noqa: PLC0415

    with err.status("asking …") if err.is_terminal else nullcontext() as status:
        told, waited = time.monotonic(), False

        def progress(line: str, waits: bool) -> None:
            nonlocal told, waited
            if status is not None:
                status.update(escape(line))
            elif time.monotonic() - told >= SECONDS_A_LINE or (waits and not waited):
                told, waited = time.monotonic(), waits
                err.print(Text(line))

        spec, history, outcome = asyncio.run(make(files, progress))
    _tell(files, spec, history, outcome)


def _tell(files: Files, spec: SynthesisSpec, history: History, outcome: Outcome) -> None:
    from cli.synthesize.figures import line, money  # noqa: PLC0415
    from services.ingest.domain.synthesis import results  # noqa: PLC0415

    out.print(Text(f"{files.out}: {line(spec, history, outcome.seconds, spec.count)}"), soft_wrap=True)
    for reason, count in history.reasons().most_common():
        err.print(Text(f"  {count:,} attempts refused: {reason}", style="dim"))
    if given_up := results.given_up(spec, history):
        err.print(
            Text(f"{given_up:,} rows were given up after {spec.attempts} attempts; raise `attempts` to try again")
        )
    if history.lost:
        err.print(Text(f"{history.lost:,} requests have no reply, and count at the most that they may have cost"))
    if outcome.end == "complete":
        return
    rest = results.rest(spec, history)
    cost = f"; the rest would cost about {rest.tokens:,} tokens" if rest else ""
    cost += f", {money(rest.money)}" if rest and spec.prices else ""
    if outcome.end == "budget":
        err.print(Text(f"the budget is reached{cost}: raise it and run the same command to go on", style="yellow"))
        return
    err.print(Text(f"run the same command to go on{cost}"))
    if outcome.error is not None:
        raise outcome.error
    raise typer.Exit(INTERRUPTED)
