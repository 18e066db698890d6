"""The command check: validates a local file without a stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cli.commands.mine import as_rows
from cli.jobs.base import caveats, words
from cli.jobs.facts import lines
from cli.jobs.spec import build
from cli.jobs.submit import check_file
from cli.stack import state
from cli.stack.plan import absolute, base_of
from cli.stack.state import DEFAULT_STATE
from cli.target import StateOption
from cli.terminal import CliError, columns, err, out
from shared.errors import TransientError
from shared.settings import load_settings

if TYPE_CHECKING:
    from services.validate.domain.findings import Problem
    from services.validate.domain.report import FileReport, Report
    from shared.base import BaseProfile, ProfileOverride

SHOWN_PROBLEMS = 50
SHOWN_OF_A_KIND = 8
SERVER_SECONDS = 3.0


def check(
    file: Annotated[
        Path | None,
        typer.Argument(help="The dataset, in any form that can be dropped. Without it, the base alone is shown."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="The model whose tokenizer counts: a folder or a hub id.")] = None,
    method: Annotated[str | None, typer.Option(help="supervised or dpo; by default the rows decide.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the job, such as hyperparameters.max_length=512.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page, with plots, to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON, and nothing else.")] = False,
    folder: StateOption = DEFAULT_STATE,
) -> None:
    """Check a dataset before anything is uploaded, and say what is known of the base. Exit 0 when a job could be
    trained on it, else 1."""
    if file is not None:
        check_file(file)
    spec = build(None, set_ or (), {"method": method})
    settings = load_settings()
    # the model that a job would tune is that of the settings or the stack; the flag says whose tokenizer counts
    kept = state.load(absolute(folder))
    tuned, tuned_path = base_of(settings, kept, None, None)
    settings.model.model_copy(update={"id": tuned, "path": tuned_path}).base_of(spec.model)
    model, path = base_of(settings, kept, base, None)
    if (kept or "model" in settings.model_fields_set) and (path or model) != (tuned_path or tuned):
        note = f"tokens are counted for {model}, but a job here tunes {tuned} (`tunestream up --base` says which)"
        err.print(Text(note, style="yellow"))
    # what is set of the profile is meant for the base that a job would tune
    override = settings.model.profile if (path or model) == (tuned_path or tuned) else None
    if file is None:
        _show_base(path or model, model, override, as_json)
        return
    with (
        as_rows(file, spec.source) as rows,
        err.status("loading the tokenizer and checking …") if err.is_terminal else nullcontext(),
    ):
        from services.validate.check import check as validate  # noqa: PLC0415  # imports transformers: seconds

        try:
            report = validate(
                rows,
                spec=spec,
                base_location=path or model,
                limits=settings.validation,
                override=override,
                # a person waits for this answer, and a server that is still starting can be asked again
                render=settings.render.model_copy(update={"start_timeout_seconds": SERVER_SECONDS}),
                base=model,
                html=html,
            )
        except TransientError as error:
            if base is not None:
                raise CliError(str(error), "give the folder of a model with --base, or try again") from None
            err.print(Text(f"{error}: tokens are not counted; --base FOLDER counts without a hub", style="yellow"))
            report = validate(rows, spec=spec, base_location=None, limits=settings.validation, html=html)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _show(report)
        if html is not None:
            out.print(Text(f"the report as a page: {html}", style="dim"))
    if not report.ok:
        raise typer.Exit(1)


def _show_base(location: str, model: str, override: ProfileOverride | None, as_json: bool) -> None:
    from shared.base.making import profile_at  # noqa: PLC0415  # imports transformers: seconds

    try:
        profile = profile_at(location, model, override)
    except TransientError as error:
        raise CliError(str(error), "give the folder of a model with --base, or try again") from None
    if as_json:
        typer.echo(profile.model_dump_json(indent=2))
    else:
        _print_base(model, profile)


def _print_base(model: str, profile: BaseProfile) -> None:
    out.print(_table({"base": model, **words(profile)}))
    for caveat in caveats(profile):
        out.print(Text(caveat, style="yellow"), soft_wrap=True)


def _table(lines: dict[str, str]) -> Table:
    table = Table(show_header=False, box=None)
    for name, value in lines.items():
        table.add_row(Text(name, style="dim"), Text(value))
    return table


def _show(report: Report) -> None:
    if report.profile is not None and report.base is not None:
        _print_base(report.base, report.profile)
        out.print()
    training = report.training
    if training.problems:
        shown = _shown(training)
        out.print(_problems(shown))
        if (more := training.errors + training.warnings - len(shown)) > 0:
            kinds = ", ".join(f"{code} {count:,}" for code, count in training.warning_counts.items())
            out.print(Text(f"… and {more:,} more; --json has the first {len(training.problems)}", style="dim"))
            if kinds:
                out.print(Text(f"warnings by kind: {kinds}", style="dim"), soft_wrap=True)
        out.print()
    out.print(_table(_facts(report)))
    if report.ok:
        out.print(Text(f"{training.name} can be trained on", style="bold green"))
    else:
        reason = report.failure.message if report.failure else f"{training.errors} errors"
        out.print(Text(f"{training.name} cannot be trained on: {reason}", style="bold red"), soft_wrap=True)


def _shown(file: FileReport) -> list[Problem]:
    """The first errors, and of each kind of warning a few, so that no kind hides the others."""
    kinds: Counter[str] = Counter()
    shown = []
    for problem in file.problems:
        kinds[problem.code] += problem.severity == "warning"
        if kinds[problem.code] <= SHOWN_OF_A_KIND:
            shown.append(problem)
    return shown[:SHOWN_PROBLEMS]


def _problems(problems: Sequence[Problem]) -> Table:
    table = columns("line", "field", "problem", "remedy")
    for problem in problems:
        style = "red" if problem.severity == "error" else "yellow"
        table.add_row(
            str(problem.line or ""),
            Text(problem.field),
            Text(problem.message, style=style),
            Text(problem.remedy),
        )
    return table


def _facts(report: Report) -> dict[str, str]:
    file = report.training
    facts: dict[str, Any] = {
        "format": f"{report.format} ({report.method})" if report.format else None,
        "rows": f"{file.rows:,}, usable {file.usable:,}",
        "errors": f"{file.errors:,}",
        "warnings": f"{file.warnings:,}",
        "duplicates": f"{file.duplicates:,}{_lines(file.duplicate_lines)}" if file.duplicates else "none",
    }
    if tokens := file.tokens:
        facts["tokens"] = (
            f"{tokens.total:,}; per row {tokens.min:,} to {tokens.max:,}, mean {tokens.mean:,.1f}, "
            f"median {tokens.median:,}, 95 % up to {tokens.p95:,}"
        )
        facts["tokenizer"] = report.base
        facts["too long"] = f"{file.over_length:,} of more than {report.max_length:,} tokens ({report.over_length})"
    if file.facts:
        facts |= lines(file.facts)
    if report.served or report.ok:
        facts["as served"] = report.served or "not compared with the server: no tokens were counted"
    if left_out := [str(dropped) for dropped in file.dropped if dropped.rows]:
        facts["left out"] = ", ".join(left_out)
    if report.splits:
        facts["split"] = ", ".join(f"{name} {split.examples:,}" for name, split in report.splits.items())
    if trained := report.estimate:
        epochs = f"{trained.epochs} epoch{'' if trained.epochs == 1 else 's'}"
        facts["to train"] = (
            f"{trained.training_tokens:,} tokens in {epochs}; `tunestream estimate` says how long it takes"
        )
    return {name: str(value) for name, value in facts.items() if value is not None}


def _lines(numbers: tuple[int, ...]) -> str:
    if not numbers:
        return ""
    return f" (lines {', '.join(map(str, numbers[:10]))}{' …' if len(numbers) > 10 else ''})"
