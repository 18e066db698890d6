"""Output: results go to stdout, everything else to stderr, and errors have no traceback."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer import Exit
from typer.core import TyperGroup

from shared.errors import InputError, StoreUnavailable, TunestreamError

WIDE = 400  # columns if there is no terminal: text for a pipe is never wrapped

out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(highlight=False, width=None if sys.stderr.isatty() else WIDE, stderr=True)

INTERRUPTED = 130  # 128 + SIGINT, what shells expect
NO_STACK = (
    "start one here with `tunestream up`, or name another: TUNESTREAM_API__URL and the other settings of its client.env"
)


def columns(first: str, *others: str) -> Table:
    """An empty table with these headers. The first column is never cut, because users copy it."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, overflow="fold")
    return table


def printable(text: str) -> str:
    """The text with control characters escaped, so that a terminal shows them instead of obeying."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class CliError(Exception):
    """Ends the command with two lines: what is wrong, and what to do."""

    def __init__(self, message: str, remedy: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.code = code


class Group(TyperGroup):
    """A command group that turns every expected error into two lines and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # a context of click, or of typer's own copy of it, by version
        try:
            return super().invoke(ctx)
        except CliError as error:
            say(error.message, error.remedy)
            raise Exit(error.code) from None
        except StoreUnavailable as error:
            say(str(error), NO_STACK)
            raise Exit(1) from None
        except InputError as error:
            say(error.with_field, "")
            raise Exit(1) from None
        except TunestreamError as error:
            say(str(error), "")
            raise Exit(1) from None
        except KeyboardInterrupt:
            raise Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # the reader closed the pipe, as in `tunestream logs | head`: no error, but stdout must not be flushed again
            sys.stdout = None
            raise Exit(0) from None


def say(message: str, remedy: str) -> None:
    """Print an error and, unless it is empty, its remedy to stderr."""
    err.print(f"[bold red]error[/]: {escape(message)}", soft_wrap=True)
    if remedy:
        err.print(f"[bold]remedy[/]: {escape(remedy)}", soft_wrap=True)
