"""The command trace: the spans of a job, and how long each of them took."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from cli.client import Client
from cli.jobs import jaeger
from cli.jobs.figures import duration
from cli.jobs.span_tree import Node, span_tree, time_range
from cli.target import TargetOption, resolve
from cli.terminal import CliError, err, out

MIN_SECONDS = 0.0005  # a shorter span is shown as a moment, without its time


def trace(job: Annotated[str, typer.Argument(help="The id that submit printed.")], folder: TargetOption = None) -> None:
    """Show a job's trace: its stages and their phases as a tree, with the time of each."""
    target = resolve(folder)
    with Client(target) as client:
        trace_id = client.job(job).get("trace_id")
    if not trace_id:
        raise CliError(f"the manifest of {job} is not known yet", "try again in a moment")
    typer.echo(trace_id)
    if target.jaeger_url is None:
        err.print(
            "to see the trace here, set TUNESTREAM_TELEMETRY__JAEGER_URL, such as http://127.0.0.1:16686; the services "
            "send their spans to TUNESTREAM_TELEMETRY__OTLP_ENDPOINT, such as http://127.0.0.1:4317",
            soft_wrap=True,
        )
        return
    typer.echo(jaeger.link(target.jaeger_url, trace_id))
    found = jaeger.fetch(target.jaeger_url, trace_id)
    if found is None:
        raise CliError(
            "Jaeger has no span of this job",
            "do the services send to this Jaeger? TUNESTREAM_TELEMETRY__OTLP_ENDPOINT says where",
        )
    nodes = span_tree(found)
    began, ended = time_range(nodes)
    tree = Tree(Text.assemble((job, "bold"), f"  {duration(ended - began)}"))
    for node in nodes:
        _add(tree, node, 1)
    out.print(tree)


def _add(tree: Tree, node: Node, attempt: int) -> None:
    """Add a node and its children. `attempt` is that of the parent; a line names its attempt only if it differs."""
    branch = tree.add(_line(node, attempt))
    for child in node.children:
        _add(branch, child, node.attempt)


def _line(node: Node, attempt: int) -> Text:
    line = Text(node.name)
    if node.count > 1:
        line.append(f" × {node.count}")
    if node.attempt > attempt:
        line.append(f", attempt {node.attempt}")
    seconds = node.seconds
    if seconds is None:
        line.append("  not ended", style="yellow")
    elif seconds >= MIN_SECONDS:
        line.append(f"  {duration(seconds) if seconds >= 1 else f'{seconds * 1000:.0f} ms'}", style="cyan")
    line.append(f"  {node.service}", style="dim")
    if node.error:
        line.append(f"  {node.error}")
        line.stylize("red")
    return line
