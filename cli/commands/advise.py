"""The command advise: whether to fine-tune at all, prompt, retrieve, or gather more data first."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.text import Text

from cli.commands.mine import as_rows
from cli.jobs.submit import check_file
from cli.terminal import CliError, columns, err, out
from shared.errors import TransientError
from shared.events import JobSpec
from shared.settings import load_settings

if TYPE_CHECKING:
    from services.validate.domain.advice import Advice, Asked, Measured, Sample

PACES = ("never", "yearly", "monthly", "weekly", "daily", "hourly")
STYLES = {"fine-tune": "green", "prompt": "cyan", "retrieve": "magenta", "more data": "yellow"}


def advise(
    file: Annotated[Path, typer.Argument(help="The dataset, in any form that can be dropped.")],
    endpoint: Annotated[
        str | None, typer.Option(help="The base URL of an OpenAI-compatible API: its model is asked for a sample.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model to ask there.")] = None,
    examples: Annotated[int, typer.Option(min=5, max=2000, help="How many rows are asked.")] = 40,
    shots: Annotated[int, typer.Option(min=0, max=20, help="How many of the nearest rows a prompt gets.")] = 5,
    previous: Annotated[Path | None, typer.Option(help="An earlier version of the file.")] = None,
    requests_per_day: Annotated[int | None, typer.Option(min=0, help="How many requests there will be.")] = None,
    needs_sources: Annotated[
        bool | None, typer.Option("--needs-sources/--no-sources", help="Whether answers must show their sources.")
    ] = None,
    changes: Annotated[str | None, typer.Option(help=f"How often right answers change: {', '.join(PACES)}.")] = None,
    facts: Annotated[
        Path | None, typer.Option(help="A YAML file with the last three; by default FILE.advice.yaml, if it is there.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the rows that are asked.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
) -> None:
    """Say whether to fine-tune, prompt, retrieve or gather more data, with the numbers that speak for it. The key of
    the endpoint is read from OPENAI_API_KEY."""
    from services.validate.domain import advice  # noqa: PLC0415

    check_file(file)
    beside = file.with_suffix(".advice.yaml")
    asked = _asked(facts or (beside if beside.is_file() else None), requests_per_day, needs_sources, changes)
    rows, count = _samples(file)
    before = _samples(check_file(previous))[0] if previous else None
    found = advice.facts_of(rows, before, count, quoting=True)
    measured = _measure(rows, found, endpoint, model, examples, shots, seed) if endpoint else None
    result = advice.advise(found, asked, measured)
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        show(result)


def _samples(file: Path) -> tuple[list[Sample], int]:
    """The usable rows of a file, as the validate stage sees them, or an even share of them; and how many there are."""
    from services.validate.advising import samples_of  # noqa: PLC0415

    with as_rows(file, None) as rows:
        found, report = samples_of(rows, spec=JobSpec(), limits=load_settings().validation)
    if not found:
        first = f": {report.problems[0]}" if report.problems else ""
        raise CliError(f"no row of {file} can be used{first}", f"`tunestream check {file}` lists all problems")
    return found, report.usable


def _measure(
    rows: list[Sample], facts: object, endpoint: str, model: str | None, examples: int, shots: int, seed: int
) -> Measured:
    from services.validate.asking import measure  # noqa: PLC0415
    from services.validate.domain.advice import Facts  # noqa: PLC0415

    assert isinstance(facts, Facts)
    if model is None:
        raise CliError("--endpoint needs --model", "name a model that the endpoint serves")
    with err.status("asking …") if err.is_terminal else nullcontext() as status:

        def told(done: int, total: int) -> None:
            if status is not None:
                status.update(f"asking … {done} of {total} answers")

        try:
            return measure(
                rows,
                facts,
                endpoint=endpoint,
                model=model,
                key=os.environ.get("OPENAI_API_KEY"),
                examples=examples,
                shots=shots,
                seed=seed,
                told=told,
            )
        except TransientError as error:
            raise CliError(str(error), "start the server, or leave --endpoint out") from None


def _asked(facts: Path | None, requests: int | None, sources: bool | None, changes: str | None) -> Asked:
    from services.validate.domain.advice import Asked  # noqa: PLC0415

    given: dict[str, object] = {}
    if facts is not None:
        try:
            read = yaml.safe_load(facts.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise CliError(f"{facts} cannot be read: {error}") from None
        if not isinstance(read, dict) or set(read) - set(Asked.model_fields):
            raise CliError(f"{facts}: there are {', '.join(Asked.model_fields)}", "for example `changes: weekly`")
        given = read
    flags = {"requests_per_day": requests, "needs_sources": sources, "changes": changes}
    given |= {name: value for name, value in flags.items() if value is not None}
    if given.get("changes") not in (None, *PACES):
        raise CliError(f"changes is {given['changes']!r}", f"it is one of {', '.join(PACES)}")
    try:
        return Asked.model_validate(given)
    except ValueError as error:
        raise CliError(f"what was said of the task is wrong: {error}") from None


def show(found: Advice) -> None:
    """Print the verdict, its reasons, and what is not known."""
    style = STYLES.get(found.verdict.split(" + ")[0], "")
    out.print(Text(found.verdict, style=f"bold {style}"))
    reasons = columns("speaks for", "because")
    for reason in found.reasons:
        reasons.add_row(Text(reason.speaks_for, style=STYLES[reason.speaks_for]), Text(reason.words))
    out.print(reasons)
    if measured := found.measured:
        few = f", with the {measured.shots} nearest examples {measured.few_shot}" if measured.few_shot else ""
        out.print(f"{measured.model}: {measured.metric} {measured.zero_shot} without examples{few}", markup=False)
    for unknown in found.not_measured:
        out.print(Text(f"not known: {unknown}", style="dim"), soft_wrap=True)
