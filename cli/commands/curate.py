"""The command curate: accept, edit or reject the rows of a dataset, one after the other."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cli.jobs.submit import check_file
from cli.terminal import CliError, err, out
from shared.settings import load_settings

if TYPE_CHECKING:
    from cli.curate.session import Session


def curate(
    file: Annotated[Path, typer.Argument(help="The dataset: one JSON object per line.")],
    out_file: Annotated[
        Path | None, typer.Option("--out", help="The curated dataset; by default NAME.curated.jsonl beside the file.")
    ] = None,
    accept_clean: Annotated[
        bool, typer.Option("--accept-clean", help="Accept all rows of which no check says anything; show the others.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Show the rows that are decided, too.")] = False,
) -> None:
    """Accept, edit or reject a dataset row by row, with what the checks found beside each.

    Every decision is kept at once beside the file (NAME.curation.jsonl): leave at any time, and go on with the same
    command. The curated dataset has the rows that were accepted or edited.
    """
    from cli.curate.journal import Journal  # noqa: PLC0415  # the checks import more than other commands need
    from cli.curate.rows import load  # noqa: PLC0415
    from cli.curate.session import Session  # noqa: PLC0415

    check_file(file)
    target = out_file or file.with_name(f"{file.stem}.curated.jsonl")
    if target.exists() and target.samefile(file):
        raise CliError(f"--out {target} is the dataset itself", "name another file; the dataset stays as it is")
    limits = load_settings().validation
    session = Session(load(file, limits), Journal(file.with_name(f"{file.stem}.curation.jsonl")), limits, _next_key)
    if accept_clean:
        out.print(Text(f"{session.accept_clean():,} rows without findings are accepted", style="dim"))
    try:
        session.run(again)
    except KeyboardInterrupt:
        out.print()
    _write(session, target)
    _summarize(session, file, target)


def _write(session: Session, target: Path) -> None:
    """Write the curated dataset. It appears whole or not at all."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    with partial.open("wb") as written:
        for line in session.chosen():
            written.write(line + b"\n")
    partial.replace(target)


def _summarize(session: Session, file: Path, target: Path) -> None:
    counts = session.counts()
    said = [f"{counts[name]:,} {name}" for name in ("accepted", "edited", "rejected") if counts[name]]
    out.print(Text(f"{target}: {counts['accepted'] + counts['edited']:,} rows ({', '.join(said) or 'none decided'})"))
    if counts["open"]:
        err.print(Text(f"{counts['open']:,} rows of {file} are not decided: run the same command to go on"))


def _next_key() -> str:
    """The next key, or the first letter of the next line where there is no terminal. "" at the end of the input."""
    if sys.stdin.isatty():
        try:
            return typer.getchar().lower()
        except EOFError:
            return ""
    line = sys.stdin.readline()
    return line.strip()[:1].lower() or ("?" if line else "")
