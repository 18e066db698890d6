"""The commands up, down, status, logs and env: the embedded stack."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli.exports import exports, shell
from cli.jobs.figures import duration
from cli.stack import leftovers, logs, run, state
from cli.stack.boot import NotReady
from cli.stack.plan import absolute, is_set
from cli.stack.programs import PARTS, programs
from cli.stack.readiness import probe_for
from cli.stack.state import DEFAULT_STATE, Stack
from cli.target import StateOption, TargetOption, embedded, resolve
from cli.terminal import INTERRUPTED, NO_STACK, CliError, columns, err, out, say
from shared.settings import load_settings

START_SECONDS = 900.0  # the first start may download the base model


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when everything is ready; the stack keeps running.")
    ] = False,
    base: Annotated[str | None, typer.Option(help="The model to tune: a folder or a hub id.")] = None,
    base_id: Annotated[
        str | None, typer.Option(help="The model's name for users; by default the folder's name or the id.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="A service that runs elsewhere, or `render`; may be repeated.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds within which everything must be ready.")
    ] = START_SECONDS,
    folder: StateOption = DEFAULT_STATE,
) -> None:
    """Start the whole stack on this machine, without Docker; or start again what is down."""
    if unknown := set(without or ()) - set(PARTS):
        raise CliError(f"--without {', '.join(sorted(unknown))}: no such service", f"there are {', '.join(PARTS)}")
    options = run.UpOptions(base, base_id, tuple(without or ()))
    already = run.running(folder) is not None
    with _signals_interrupt():
        try:
            found = run.up(folder, options, err, timeout)
        except NotReady as error:
            say(error.message, error.remedy)
            err.print(
                f"the last lines of its log ({absolute(folder) / 'logs' / (error.program + '.log')}):", style="dim"
            )
            err.print("\n".join(error.tail) or "(empty)", style="dim", markup=False, soft_wrap=True)
            raise typer.Exit(1) from None
        err.print(_summary(found.stack, already))
        if detach or already:
            return
        _watch(found)


def _watch(found: run.Running) -> None:
    """Stay until Ctrl-C, then stop everything."""
    err.print("Ctrl-C stops everything.", style="dim")
    try:
        for change in run.changes(found):
            err.print(change, style="yellow", markup=False)
    except KeyboardInterrupt:
        err.print("stopping …")
        with _signals_ignored():
            run.stop(found)
        err.print("stopped")
        raise typer.Exit(INTERRUPTED) from None
    raise CliError("the stack was stopped from outside", "`tunestream up` starts it again; its data is kept")


def down(folder: StateOption = DEFAULT_STATE) -> None:
    """Stop the stack of this directory. It is no error when none runs."""
    count = run.down(folder)
    err.print(f"stopped {count} processes" if count else "nothing was running")


def status(folder: StateOption = DEFAULT_STATE) -> None:
    """Show the processes of the stack; exit 1 unless all are ready. The render server may still be starting."""
    found = run.running(folder)
    if found is None:
        left = leftovers.find(absolute(folder))
        note = f"; {len(left)} processes of a crashed one are left" if left else ""
        raise CliError(f"no stack is running in {folder}{note}", NO_STACK)
    table = columns("process", "state", "pid", "for", "address")
    fine = True
    awaited = {program.name for program in programs(found.stack) if program.awaited}
    for name, process in found.supervisor.processes().items():
        problem = probe_for(name, found.stack)() if process.pid else process.error or process.state.lower()
        fine = fine and (problem is None or name not in awaited)
        table.add_row(
            name,
            Text(problem or "ready", style="yellow" if problem else "green"),
            str(process.pid or ""),
            duration(process.seconds) if process.pid else "",
            f"127.0.0.1:{found.stack.ports['s3' if name == 'weed' else 'kafka' if name == 'tansu' else name]}",
        )
    out.print(table)
    if not fine:
        raise typer.Exit(1)


def show_logs(
    name: Annotated[str | None, typer.Argument(help="One process; by default all of them.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines to print first.")] = 50,
    folder: StateOption = DEFAULT_STATE,
) -> None:
    """Show the logs of the processes."""
    files = logs.files(absolute(folder) / "logs", name)
    for line in logs.read(files, lines, follow):
        typer.echo(line)


def env(folder: TargetOption = None) -> None:
    """Print addresses and keys for a shell: eval "$(tunestream env)"."""
    stack = embedded(folder)
    if stack is None and not is_set(load_settings(), "api", "url"):
        raise CliError("no stack was started here", NO_STACK)
    if stack is not None and run.running(stack.state) is None:
        raise CliError(f"no stack is running in {stack.state}", NO_STACK)
    typer.echo(shell(exports(resolve(folder), os.environ)), nl=False)


def _summary(stack: Stack, already: bool) -> Table:
    rows = {
        "base": stack.base,
        "OpenAI API": f"{stack.inference_url}/v1",
        "jobs": stack.api_url,
        "S3": f"{stack.s3_url}  (drop datasets into the bucket {stack.datasets_bucket})",
        "Kafka": stack.kafka,
        "data, logs": str(stack.state),
        "shell": 'eval "$(tunestream env)"'
        if _is_default(stack)
        else f'eval "$(tunestream env --state {stack.state})"',
    }
    title = "the stack was running already; all of it is ready" if already else "all is ready"
    table = Table(show_header=False, box=None, title=title, title_justify="left", title_style="bold green")
    for name, value in rows.items():
        table.add_row(Text(name, style="dim"), escape(value))
    return table


def _is_default(stack: Stack) -> bool:
    return stack.state == absolute(state.DEFAULT_STATE)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Make a closed terminal or a `kill` stop the foreground stack as cleanly as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Ignore signals within the block: an impatient second Ctrl-C would leave half of the stack running."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
