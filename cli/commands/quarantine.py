"""The command quarantine: drops and events that could not become jobs, and why."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cli.target import TargetOption, resolve
from cli.terminal import CliError, columns, err, out, printable

if TYPE_CHECKING:
    from shared.events import Quarantined

app = typer.Typer(help="What could not become a job, and why: list, show.")

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, and nothing else.")]
All = Annotated[bool, typer.Option("--all", help="Also what became a job later.")]


@app.callback(invoke_without_command=True)
def main(context: typer.Context, all_: All = False, as_json: AsJson = False, folder: TargetOption = None) -> None:
    """List what could not become a job, oldest first; as `tunestream quarantine list`."""
    if context.invoked_subcommand is None:
        list_(all_, as_json, folder)


@app.command("list")
def list_(all_: All = False, as_json: AsJson = False, folder: TargetOption = None) -> None:
    """List what could not become a job, oldest first."""
    found = {name: about for name, about in _read(folder).items() if all_ or about.solved_at is None}
    if as_json:
        typer.echo(json.dumps([_document(name, about) for name, about in found.items()], indent=2))
        return
    if not found:
        err.print("nothing is in quarantine")
        return
    table = columns("id", "since", "place", "field", "reason")
    for name, about in found.items():
        table.add_row(
            Text(_line(name)),
            _time(about.at),
            Text(_line(about.place)),
            Text(_line(about.field or "")),
            Text(_line(about.reason), style="dim" if about.solved_at else "red"),
        )
    out.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="The id that the list shows, or the beginning of it.")],
    as_json: AsJson = False,
    folder: TargetOption = None,
) -> None:
    """Show one: where it is, what is wrong, what to do, and whether it is tried again."""
    matching = {full: about for full, about in _read(folder).items() if name and full.startswith(name)}
    if len(matching) != 1:
        problem = f"{len(matching)} of them begin with {name}" if matching else f"there is no {name} in quarantine"
        raise CliError(problem, "`tunestream quarantine list --all` shows all ids")
    [(full, about)] = matching.items()
    if as_json:
        typer.echo(json.dumps(_document(full, about), indent=2))
        return
    facts = {
        "id": full,
        "what": about.kind,
        "place": about.place,
        "field": about.field or "",
        "reason": about.reason,
        "remedy": about.remedy,
        "since": _time(about.at),
        "tried again": _again(about),
    }
    table = columns("", "")
    table.show_header = False
    for label, value in facts.items():
        if value:
            table.add_row(Text(label, style="dim"), Text(_line(value)))
    out.print(table)


def _read(folder: Path | None) -> dict[str, Quarantined]:
    from shared.stages import quarantine  # noqa: PLC0415  # half a second that other commands need not pay
    from shared.store.objects import ObjectStore  # noqa: PLC0415

    return asyncio.run(quarantine.read_all(ObjectStore.connect(resolve(folder).store)))


def _document(name: str, about: Quarantined) -> dict[str, object]:
    return {"id": name, **about.model_dump(mode="json")}


def _again(about: Quarantined) -> str:
    if about.solved_at is not None:
        return f"it, or what came to its place later, became a job at {_time(about.solved_at)}"
    return "no: not until it changes" if about.final else "yes, less and less often"


def _line(text: str) -> str:
    return printable(text).replace("\n", "\\n")


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return ""
