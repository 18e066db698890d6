"""The command mine: shows what a file would become as a dataset, and writes it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from cli.jobs.spec import build, read_file
from cli.jobs.submit import check_file
from cli.terminal import CliError, err, out
from shared.drops import sidecars_of
from shared.events import JobSpec, Source

if TYPE_CHECKING:
    from services.ingest.sources.report import MiningReport

SHOWN_CHARS = 400
PANEL = "How the file is read (each is a field of `source:` in the job's settings)"


def mine(
    file: Annotated[
        Path, typer.Argument(help="A table (CSV, TSV, Parquet, Excel), JSON, or JSON lines; maybe gzipped.")
    ],
    out_: Annotated[Path | None, typer.Option("--out", "-o", help="Write the dataset to this file (.jsonl).")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Which column holds what: user=Question; may be repeated.", rich_help_panel=PANEL),
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option(help="Who speaks: Kundin=user; may be repeated.", rich_help_panel=PANEL)
    ] = None,
    filter_: Annotated[
        str | None, typer.Option("--filter", help="Such as 'satisfaction_score >= 4'.", rich_help_panel=PANEL)
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.", rich_help_panel=PANEL)] = None,
    group_by: Annotated[
        str | None, typer.Option(help="The column that says which rows are one conversation.", rich_help_panel=PANEL)
    ] = None,
    order_by: Annotated[
        str | None, typer.Option(help="The column that orders the rows of a conversation.", rich_help_panel=PANEL)
    ] = None,
    answers: Annotated[
        str | None, typer.Option(help="Several answers in a row: join, first or last.", rich_help_panel=PANEL)
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="A column that each example keeps; may be repeated.", rich_help_panel=PANEL)
    ] = None,
    records: Annotated[
        str | None, typer.Option(help="Where the rows are in a JSON document: data.items", rich_help_panel=PANEL)
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="The sheet of an Excel file.", rich_help_panel=PANEL)] = None,
    encoding: Annotated[str | None, typer.Option(help="Such as windows-1252.", rich_help_panel=PANEL)] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between the cells.", rich_help_panel=PANEL)] = None,
    spec: Annotated[
        Path | None, typer.Option(help="The job's settings (YAML); by default those beside the file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
) -> None:
    """Show what a file would become if it were dropped: how it is read, which rows are left out and why, the first
    examples. With --out, write the dataset. No stack is needed."""
    check_file(file)
    flags: dict[str, Any] = {
        "filter": filter_,
        "system": system,
        "group_by": group_by,
        "order_by": order_by,
        "answers": answers,
        "metadata": metadata or None,
        "records": records,
        "sheet": sheet,
        "encoding": encoding,
        "delimiter": delimiter,
    }
    found = _settings(file, spec).source or Source()
    given = found.model_dump(exclude_defaults=True) | {
        name: value for name, value in flags.items() if value is not None
    }
    given["columns"] = {**found.columns, **_pairs("--column", column or [])}
    given["roles"] = {**found.roles, **_pairs("--role", role or [])}
    source = build(None, (), {"source": given}).source
    if out_ is not None:
        report = _mined(file, out_, source)
    else:
        with tempfile.TemporaryDirectory(prefix="tunestream-mine-") as folder:
            report = _mined(file, Path(folder) / "rows.jsonl", source)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    _show(report)
    if out_ is not None:
        out.print(Text(f"{report.examples:,} examples are in {out_}", style="bold green"))
    else:
        err.print(f"--out FILE.jsonl writes them; `tunestream submit {file}` trains on them", markup=False)


@contextmanager
def as_rows(file: Path, source: Source | None) -> Iterator[Path]:
    """The rows that a dropped file would be checked as: the file itself, or what ingest would make of it."""
    from services.ingest.sources.limits import SAMPLE_BYTES  # noqa: PLC0415
    from services.ingest.sources.readers.kinds import in_training_format  # noqa: PLC0415

    source = source or _settings(file, None).source
    with file.open("rb") as opened:
        head = opened.read(SAMPLE_BYTES)
    if in_training_format(head, file.name, source):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="tunestream-mine-") as folder:
        rows = Path(folder) / file.name
        for sentence in _mined(file, rows, source).sentences():
            err.print(Text(sentence, style="dim"), soft_wrap=True)
        yield rows


def _settings(file: Path, spec: Path | None) -> JobSpec:
    """The settings of the flag, else those beside the file."""
    if spec is None:
        spec = next((path for path in map(Path, sidecars_of(str(file))) if path.is_file()), None)
    return build(read_file(spec), (), {})


def _pairs(flag: str, given: list[str]) -> dict[str, Any]:
    """`name=value` pairs; a name that is given twice has both values."""
    pairs: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not value:
            raise CliError(f"{flag} {each}: write name=value", "for example --column user=Question")
        pairs[name] = value if name not in pairs else (*_list(pairs[name]), value)
    return pairs


def _list(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _mined(file: Path, to: Path, source: Source | None) -> MiningReport:
    from services.ingest.sources.mine import mine as convert  # noqa: PLC0415  # what the other commands need not pay

    if to.resolve() == file.resolve():
        raise CliError(f"{to} is the file that is read", "give --out another name")
    unfinished = to.with_name(f".{to.name}.part")
    try:
        with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
            task = progress.add_task("reading", total=1.0)
            report = convert(
                file,
                unfinished,
                name=file.name,
                source=source,
                on_progress=lambda rows, share: progress.update(
                    task, completed=share, description=f"reading: {rows:,} rows"
                ),
            )
        unfinished.replace(to)
    except OSError as error:
        raise CliError(f"{error.filename or to}: {error.strerror or error}") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return report


def _show(report: MiningReport) -> None:
    table = Table(show_header=False, box=None)
    facts = {
        "file": f"{report.name}: {report.words}",
        "columns": ", ".join(report.columns),
        **{f"  {target}": " + ".join(columns) for target, columns in report.mapping.items()},
        "conversations": f"rows with the same {report.group_by}" if report.group_by else "",
        "ordered by": report.order_by or "",
        "filter": report.filter or "",
    }
    for name, value in facts.items():
        if value:
            table.add_row(Text(name, style="dim"), Text(value))
    out.print(table)
    out.print()
    for number, example in enumerate(report.first, start=1):
        out.print(Text(f"example {number}", style="bold"))
        _show_example(example)
    for sentence in list(report.sentences())[1:]:
        out.print(Text(sentence), soft_wrap=True)


def _show_example(example: dict[str, Any]) -> None:
    """An example as it is trained on; what a model learns is green."""
    parts = (
        [("prompt", example["prompt"], ""), ("completion", example["completion"], "green")]
        if "prompt" in example
        else []
    )
    messages = example.get("messages") or (example.get("input") or {}).get("messages") or []
    for message in messages:
        said = _said(message.get("content")) or message.get("tool_calls") or ""
        learnt = message.get("role") == "assistant" and "messages" in example and message.get("weight") != 0
        parts.append((str(message.get("role")), said, "green" if learnt else ""))
    for key, style in (("preferred_completion", "green"), ("non_preferred_completion", "red")):
        parts += [
            (key.split("_completion")[0].replace("_", " "), _said(each.get("content")), style)
            for each in example.get(key, [])
        ]
    for name, said, style in parts:
        text = said if isinstance(said, str) else str(said)
        shown = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]} … ({len(text):,} characters)"
        out.print(Text(f"  {name}: ", style="dim") + Text(shown, style=style), soft_wrap=True)


def _said(content: Any) -> Any:
    """The text of a message, also if it is a list of parts that are text."""
    if not isinstance(content, list) or not all(isinstance(part, dict) and "text" in part for part in content):
        return content
    return "\n\n".join(str(part["text"]) for part in content)
