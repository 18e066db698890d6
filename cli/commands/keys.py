"""The commands keys create, list and revoke: the API keys of a stack."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text

from cli.client import Client
from cli.target import TargetOption, resolve
from cli.terminal import columns, err, out, printable

app = typer.Typer(no_args_is_help=True, help="API keys, for which a key with the right `admin` is needed.")

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, and nothing else.")]
NO_LIMIT = "By default there is no limit."


class Right(StrEnum):
    """What a key may do."""

    TRAIN = "train"
    SERVE = "serve"
    ADMIN = "admin"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for; only people read it.")],
    project: Annotated[str, typer.Option(help="The project whose files, jobs and models it sees.")] = "default",
    right: Annotated[
        list[Right] | None, typer.Option(help="May be repeated; by default `train` and `serve`.", show_default=False)
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help=NO_LIMIT)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help=f"Of generations. {NO_LIMIT}")] = None,
    max_open_jobs: Annotated[int | None, typer.Option(min=1, help=NO_LIMIT)] = None,
    as_json: AsJson = False,
    folder: TargetOption = None,
) -> None:
    """Make a key, and print its secret, which is kept nowhere: only now can it be copied."""
    limits = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "max_open_jobs": max_open_jobs,
    }
    body: dict[str, Any] = {"name": name, "project": project, "limits": limits}
    if right:
        body["rights"] = [each.value for each in right]
    with Client(resolve(folder)) as client:
        made = client.create_key(body)
    if as_json:
        typer.echo(json.dumps(made, indent=2))
        return
    typer.echo(made["secret"])
    err.print(Text(f"{made['id']} may {_joined(made['rights'])} in the project {made['project']}"), soft_wrap=True)


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Also those that are revoked.")] = False,
    as_json: AsJson = False,
    folder: TargetOption = None,
) -> None:
    """List the keys, newest first."""
    with Client(resolve(folder)) as client:
        found = [key for key in client.api_keys() if all_ or key.get("revoked_at") is None]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    if not found:
        err.print("there are no keys but those of TUNESTREAM_INFERENCE__API_KEYS")
        return
    table = columns("id", "name", "project", "rights", "limits", "made", "revoked")
    for key in found:
        table.add_row(
            Text(str(key["id"])),
            Text(printable(str(key["name"]))),
            Text(str(key["project"])),
            Text(_joined(key["rights"])),
            Text(_limits(key["limits"])),
            _time(key["created_at"]),
            _time(key.get("revoked_at")),
        )
    out.print(table)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The id that the list shows.")], folder: TargetOption = None
) -> None:
    """Revoke a key: within five seconds no service takes it any more. That cannot be undone."""
    with Client(resolve(folder)) as client:
        client.revoke_key(key)
    err.print(Text(f"{key} is revoked"), soft_wrap=True)


def _joined(words: Any) -> str:
    return ", ".join(map(str, words)) or "nothing"


def _limits(limits: dict[str, Any]) -> str:
    set_ = {name.replace("_", " "): value for name, value in limits.items() if value is not None}
    return ", ".join(f"{value} {name}" for name, value in set_.items())


def _time(at: float | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
