"""The `tunestream` command: the list of its commands."""

from __future__ import annotations

from collections.abc import Callable

import typer

from cli.commands import (
    advise,
    check,
    curate,
    dlq,
    estimate,
    jobs,
    keys,
    mine,
    models,
    quarantine,
    stack,
    synthesize,
    trace,
)
from cli.sweeps import commands as sweeps
from cli.terminal import Group

app = typer.Typer(
    name="tunestream",
    help="A self-hosted fine-tuning factory: from a file in a bucket to a better model behind an endpoint.",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "The stack": {
        "up": stack.up,
        "down": stack.down,
        "status": stack.status,
        "logs": stack.show_logs,
        "env": stack.env,
    },
    "Datasets": {
        "synthesize": synthesize.synthesize,
        "mine": mine.mine,
        "check": check.check,
        "advise": advise.advise,
        "estimate": estimate.estimate,
        "curate": curate.curate,
    },
    "Jobs": {
        "submit": jobs.submit,
        "sweep": sweeps.sweep,
        "watch": jobs.watch,
        "trace": trace.trace,
        "jobs": jobs.jobs,
        "pause": jobs.pause,
        "resume": jobs.resume,
        "cancel": jobs.cancel,
        "retry": jobs.retry,
    },
    "Models": {
        "chat": models.chat,
        "models": models.models,
        "deploy": models.deploy,
        "rollback": models.rollback,
    },
}

for panel, commands in PANELS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
app.add_typer(quarantine.app, name="quarantine", rich_help_panel="Jobs")
app.add_typer(sweeps.app, name="sweeps", rich_help_panel="Jobs")
app.add_typer(keys.app, name="keys", rich_help_panel="Access")
app.add_typer(dlq.app, name="dlq", rich_help_panel="The bus")
