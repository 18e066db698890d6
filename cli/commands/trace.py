"""trace: what a job went through, and how long each part of it took."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from cli.client import Client
from cli.jobs import jaeger
from cli.jobs.story import Chapter, story, whole
from cli.jobs.view import duration
from cli.target import TargetOption, resolve
from cli.terminal import CliError, err, out

SHORTEST = 0.0005  # seconds; what took less happened at a moment


def trace(job: Annotated[str, typer.Argument(help="The id that submit printed.")], folder: TargetOption = None) -> None:
    """Show a job's trace: its stages and their phases as a tree, with the time that each took."""
    target = resolve(folder)
    with Client(target) as client:
        trace_id = client.job(job).get("trace_id")
    if not trace_id:
        raise CliError(f"the manifest of {job} is not known yet", "try again in a moment")
    typer.echo(trace_id)
    if target.jaeger_url is None:
        err.print(
            "to see it here, set TUNESTREAM_TELEMETRY__JAEGER_URL, such as http://127.0.0.1:16686; the services send "
            "their spans to TUNESTREAM_TELEMETRY__OTLP_ENDPOINT, such as http://127.0.0.1:4317",
            soft_wrap=True,
        )
        return
    typer.echo(jaeger.link(target.jaeger_url, trace_id))
    found = jaeger.fetch(target.jaeger_url, trace_id)
    if found is None:
        raise CliError(
            "Jaeger has no span of this job",
            "is TUNESTREAM_TELEMETRY__OTLP_ENDPOINT of the services the collector of this Jaeger?",
        )
    chapters = story(found)
    began, ended = whole(chapters)
    tree = Tree(Text.assemble((job, "bold"), f"  {duration(ended - began)}"))
    for chapter in chapters:
        _add(tree, chapter, 1)
    out.print(tree)


def _add(tree: Tree, chapter: Chapter, attempt: int) -> None:
    """`attempt`: what the line above said, or would have."""
    branch = tree.add(_line(chapter, attempt))
    for child in chapter.children:
        _add(branch, child, chapter.attempt)


def _line(chapter: Chapter, attempt: int) -> Text:
    line = Text(chapter.name)
    if chapter.count > 1:
        line.append(f" × {chapter.count}")
    if chapter.attempt > attempt:
        line.append(f", attempt {chapter.attempt}")
    seconds = chapter.seconds
    if seconds is None:
        line.append("  not ended", style="yellow")
    elif seconds >= SHORTEST:
        line.append(f"  {duration(seconds) if seconds >= 1 else f'{seconds * 1000:.0f} ms'}", style="cyan")
    line.append(f"  {chapter.service}", style="dim")
    if chapter.trouble:
        line.append(f"  {chapter.trouble}")
        line.stylize("red")
    return line
