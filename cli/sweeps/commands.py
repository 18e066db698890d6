"""The commands sweep and sweeps: a search for settings, and the searches that there are."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.live import Live
from rich.text import Text

from cli.client import Client, Json
from cli.jobs.figures import duration
from cli.jobs.spec import build, read_file
from cli.jobs.submit import check_file
from cli.sweeps import view, words
from cli.sweeps.follow import failure, follow
from cli.target import Target, TargetOption, resolve
from cli.terminal import INTERRUPTED, columns, err, out
from shared import ids

app = typer.Typer(help="Searches for settings: list, show, report, cancel.")

SweepId = Annotated[str, typer.Argument(metavar="SWEEP", help="The id that `tunestream sweep` printed.")]


def sweep(
    file: Annotated[Path, typer.Argument(help="The dataset, as JSON lines.")],
    trials: Annotated[int, typer.Option(min=1, help="How many settings are tried.")] = 8,
    parallel: Annotated[int, typer.Option(min=1, help="How many train at a time, if there are so many trainers.")] = 1,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            help="What is searched: r=8,16 or n_epochs=1..5 or learning_rate_multiplier=0.2..5:log; may be repeated. "
            "By default epochs, learning rate multiplier, rank, dropout and batch size.",
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", help="What all trainings may spend together, such as seconds=600; may be repeated."),
    ] = None,
    pruning: Annotated[
        Literal["median", "off"],
        typer.Option(help="Whether trials end early whose validation loss is above the median of the others."),
    ] = "median",
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    validation: Annotated[Path | None, typer.Option(help="A file to validate on, instead of a share of FILE.")] = None,
    suffix: Annotated[str | None, typer.Option(help="A word in the names of the tuned models.")] = None,
    alias: Annotated[str | None, typer.Option(help="The name that moves to the best model if it is better.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of all trials, such as lora.alpha=16; may be repeated.")
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="A YAML file with the settings of all trials.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the id, and do not follow the sweep.")] = False,
    folder: TargetOption = None,
) -> None:
    """Search for the settings that train the best model: each trial is a job, and the best one is evaluated and gated.

    The search goes on when this command ends; `tunestream sweeps show SWEEP` follows it again.
    """
    check_file(file)
    if validation:
        check_file(validation)
    settings = build(read_file(spec), set_ or (), {"suffix": suffix, "alias": alias})
    body: dict[str, Any] = {
        "spec": ids.chosen_settings(settings),
        "space": words.space(search or ()),
        "budget": words.budget(budget or ()),
        "trials": trials,
        "parallel": parallel,
        "pruning": pruning,
        "seed": seed,
    }
    target = resolve(folder)
    with Client(target) as client:
        body["training_file"] = client.upload(file)["id"]
        if validation:
            body["validation_file"] = client.upload(validation)["id"]
        # with the same key, a request whose answer was lost makes no second sweep
        made = client.create_sweep({name: value for name, value in body.items() if value is not None}, uuid.uuid4().hex)
    typer.echo(made["id"])
    if not detach:
        _follow(target, made["id"])


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
    folder: TargetOption = None,
) -> None:
    """List sweeps, newest first."""
    if context.invoked_subcommand is not None:
        return
    with Client(resolve(folder)) as client:
        found = client.sweeps(limit)
    if not found:
        err.print("no sweeps yet: `tunestream sweep FILE` makes one")
        return
    table = columns("sweep", "status", "dataset", "trials", "best loss", "model", "age")
    for each in found:
        done = sum(count for status, count in each["counts"].items() if status not in ("queued", "running"))
        best = each.get("best") or {}
        table.add_row(
            each["id"],
            Text(each["status"], style=view.STYLES.get(each["status"], "")),
            Text(each["filename"]),
            f"{done} of {each['trials']}",
            f"{best['valid_loss']:.4f}" if best.get("valid_loss") is not None else "",
            Text(each.get("fine_tuned_model") or ""),
            duration(round(max(0.0, each["as_of"] - each["created_at"]))),
        )
    out.print(table)


@app.command()
def show(
    name: SweepId,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON as it is now, and nothing else.")] = False,
    folder: TargetOption = None,
) -> None:
    """Follow a sweep until it is over: its trials, their losses, its result. Ctrl-C leaves it running."""
    target = resolve(folder)
    if as_json:
        with Client(target) as client:
            typer.echo(json.dumps(client.sweep(name), indent=2))
        return
    _follow(target, name)


@app.command()
def report(
    name: SweepId,
    file: Annotated[Path | None, typer.Option("--out", help="Where to write it; by default SWEEP.html here.")] = None,
    folder: TargetOption = None,
) -> None:
    """Write the page with table and plots to a file."""
    path = file or Path(f"{name}.html")
    with Client(resolve(folder)) as client:
        path.write_text(client.sweep_report(name), encoding="utf-8")
    typer.echo(path)


@app.command()
def cancel(name: SweepId, folder: TargetOption = None) -> None:
    """Cancel a sweep. What its trials have trained stays."""
    with Client(resolve(folder)) as client:
        answer = client.cancel_sweep(name)
    done = answer["status"] == "cancelled"
    err.print(f"{name} is cancelled" if done else f"{name} is being cancelled: its trials end within seconds")


def _follow(target: Target, name: str) -> None:
    last: Json = {}
    with Client(target) as client:
        try:
            if out.is_terminal and not out.is_dumb_terminal:
                with Live(console=out, refresh_per_second=4) as live:
                    for known, trouble in follow(client, name):
                        if known is not None:
                            last = known
                            live.update(view.live(known, trouble))
            else:
                lines = view.Lines()
                for known, trouble in follow(client, name):
                    last = known or last
                    for line in lines(known, trouble):
                        typer.echo(line)
        except KeyboardInterrupt:
            err.print(
                f"\nthe sweep goes on: `tunestream sweeps show {name}` follows it again, "
                f"`tunestream sweeps cancel {name}` ends it"
            )
            raise typer.Exit(INTERRUPTED) from None
    for line in view.reasons(last):
        err.print(Text(line, style="dim"), soft_wrap=True)
    if last["status"] != "succeeded":
        raise failure(last)
    for number, line in enumerate(view.result_lines(last)):
        out.print(Text(line, style="bold green" if number == 0 and last["promoted"] else ""), soft_wrap=True)
