"""The commands dlq list, show and replay: events that could not be handled."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cli.dlq.letter import Letter, Summary, pretty
from cli.target import TargetOption, resolve
from cli.terminal import CliError, columns, err, out, printable, say

if TYPE_CHECKING:
    from cli.dlq.topics import DeadLetters

app = typer.Typer(no_args_is_help=True, help="Dead letters: list, show and replay events that could not be handled.")

TOPIC_HELP = "The topic, with or without .dlq."
Topic = Annotated[str, typer.Argument(help=TOPIC_HELP)]


@app.command("list")
def list_(
    topic: Annotated[
        str | None, typer.Argument(help=f"{TOPIC_HELP} By default all topics that have dead letters.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, and nothing else.")] = False,
    folder: TargetOption = None,
) -> None:
    """Count the dead letters of each topic."""
    summaries = asyncio.run(_summaries(folder, topic))
    if as_json:
        typer.echo(json.dumps([summary.document() for summary in summaries], indent=2))
        return
    if not summaries:
        err.print("no dead letters")
        return
    table = columns("topic", "letters", "messages", "readable", "offsets", "newest", "reasons")
    for summary in summaries:
        table.add_row(
            Text(summary.topic),
            str(summary.letters),
            str(summary.messages),
            str(summary.readable),
            f"{summary.first} to {summary.last}",
            _time(summary.newest),
            Text(", ".join(f"{printable(reason)} {count}" for reason, count in summary.reasons.most_common())),
        )
    out.print(table)


@app.command()
def show(
    topic: Topic,
    offset: Annotated[int, typer.Argument(min=0, help="Which letter.")],
    raw: Annotated[bool, typer.Option("--raw", help="Print the value byte for byte, and nothing else.")] = False,
    folder: TargetOption = None,
) -> None:
    """Show one dead letter: where it came from, what is wrong with it, its headers and its value."""
    letter = asyncio.run(_letter(folder, topic, offset))
    if raw:
        sys.stdout.buffer.write(letter.value or b"")
        sys.stdout.buffer.flush()
        return
    facts = {
        "from": letter.place,
        "refused by": f"{letter.header('group')} ({letter.reason})",
        "wrong field": letter.header("field") or "not known",
        "at": _time(letter.time),
        "key": _text(letter.key),
    }
    table = columns("", "")
    table.show_header = False
    for name, value in facts.items():
        table.add_row(Text(name, style="dim"), Text(printable(value)))
    for number, problem in enumerate(letter.problems or ("nothing: a replay would be understood",)):
        table.add_row(
            Text("" if number else "wrong now", style="dim"), Text(problem, style="red" if letter.problems else "green")
        )
    for number, (name, content) in enumerate(letter.own_headers):
        table.add_row(Text("" if number else "headers", style="dim"), Text(printable(f"{name}: {_text(content)}")))
    out.print(table)
    out.print()
    out.print(Text(pretty(letter.value)), soft_wrap=True)


@app.command()
def replay(
    topic: Topic,
    offsets: Annotated[list[int] | None, typer.Argument(min=0, help="Which letters.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them, each different message once.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also send those that still cannot be read.")] = False,
    folder: TargetOption = None,
) -> None:
    """Publish dead letters again, unchanged. Exit 1 when one was left out.

    The letters stay where they are: an event that is sent twice is handled once, so a second replay does no harm.
    """
    if bool(offsets) == all_:
        raise CliError("say which letters: their offsets, or --all", f"`tunestream dlq list {topic}` counts them")
    sent, refused = asyncio.run(_replay(folder, topic, offsets or (), force))
    err.print(f"{sent} published again" + (f", {refused} left out" if refused else ""))
    if refused:
        raise typer.Exit(1)


async def _summaries(folder: Path | None, wanted: str | None) -> list[Summary]:
    found: dict[str, Summary] = {}
    async with _dead_letters(folder) as dead:
        async for letter in dead.read(await dead.topics(wanted)):
            found.setdefault(letter.topic, Summary(letter.topic)).add(letter)
    return [found[topic] for topic in sorted(found)]


async def _letter(folder: Path | None, wanted: str, offset: int) -> Letter:
    async with _dead_letters(folder) as dead:
        (topic,) = await dead.topics(wanted)
        return await dead.at(topic, offset)


async def _replay(folder: Path | None, wanted: str, offsets: Sequence[int], force: bool) -> tuple[int, int]:
    """Publish letters again. Returns how many were sent and how many were left out."""
    sent = refused = 0
    done: set[bytes] = set()
    async with _dead_letters(folder) as dead:
        (topic,) = await dead.topics(wanted)
        async for letter in _chosen(dead, topic, offsets):
            if letter.digest in done:
                continue
            done.add(letter.digest)
            if letter.omitted or (letter.problems and not force):
                remedy = "" if letter.omitted else "--force sends it all the same"
                say(f"{topic} {letter.offset} still cannot be read: {'; '.join(letter.problems)}", remedy)
                refused += 1
                continue
            await dead.replay(letter)
            typer.echo(f"{topic} {letter.offset} -> {letter.source}")
            sent += 1
    return sent, refused


async def _chosen(dead: DeadLetters, topic: str, offsets: Sequence[int]) -> AsyncIterator[Letter]:
    if offsets:
        # All are read first, so that none is sent if one does not exist.
        for letter in [await dead.at(topic, offset) for offset in offsets]:
            yield letter
    else:
        async for letter in dead.read([topic]):
            yield letter


def _dead_letters(folder: Path | None) -> DeadLetters:
    from cli.dlq.topics import DeadLetters  # noqa: PLC0415  # half a second that other commands need not pay

    return DeadLetters(resolve(folder).bus)


def _time(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds") if seconds else ""


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", errors="backslashreplace")
