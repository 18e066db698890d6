"""The commands submit, watch, jobs, pause, resume, cancel and retry: the jobs of a stack."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from cli.client import Client
from cli.jobs import jaeger
from cli.jobs import submit as submission
from cli.jobs.figures import duration
from cli.jobs.follow import Snapshot, failure, follow
from cli.jobs.result import result_lines
from cli.jobs.spec import build, read_file
from cli.jobs.view import LiveView, PlainView, notes_of
from cli.target import Target, TargetOption, resolve
from cli.terminal import INTERRUPTED, columns, err, out
from shared.events import RUNNER_STAGES

_STATUS_STYLES = {"succeeded": "green", "failed": "red", "cancelled": "red", "running": "yellow", "paused": "magenta"}


def submit(
    file: Annotated[Path, typer.Argument(help="The dataset, see `tunestream mine`.")],
    suffix: Annotated[str | None, typer.Option(help="A word in the name of the tuned model.")] = None,
    alias: Annotated[str | None, typer.Option(help="The name that moves to the model if it is better.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as hyperparameters.n_epochs=3; may be repeated.")
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="A YAML file with the job's settings.")] = None,
    validation: Annotated[Path | None, typer.Option(help="A file to validate on, instead of a share of FILE.")] = None,
    rerun: Annotated[int | None, typer.Option(min=0, help="Raise it to run the same job again.")] = None,
    name: Annotated[str | None, typer.Option(help="The key in the bucket; by default the file's name.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the job until it ends.")] = False,
    folder: TargetOption = None,
) -> None:
    """Submit a dataset: check the settings, upload, print the id of the job."""
    key = submission.dataset_key(submission.check_file(file), name)
    if validation:
        submission.check_file(validation)
    job_spec = build(read_file(spec), set_ or (), {"suffix": suffix, "alias": alias, "rerun": rerun})
    from shared.store.objects import ObjectStore  # noqa: PLC0415  # half a second that `watch` and `jobs` need not pay

    target = resolve(folder)
    datasets = ObjectStore.connect(target.store, target.store.datasets_bucket)
    job, _ = asyncio.run(submission.submit(datasets, file, key, job_spec, validation))
    typer.echo(job)
    if watch:
        _watch(target, job, expected=True)


def watch(job: Annotated[str, typer.Argument(help="The id that submit printed.")], folder: TargetOption = None) -> None:
    """Follow a job: its stages, its losses and its result. Exit 0 when it succeeded. Ctrl-C leaves the job running."""
    _watch(resolve(folder), job, expected=False)


def jobs(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
    folder: TargetOption = None,
) -> None:
    """List jobs, newest first."""
    with Client(resolve(folder)) as client:
        found = client.jobs(limit)
    if not found:
        err.print("no jobs yet: `tunestream submit FILE` makes one")
        return
    waiting = any(job.get("waiting_for") for job in found)
    table = columns("job", "status", "dataset", "model", "age", *(["waits for"] if waiting else []))
    for job in found:
        dataset = (job.get("dataset") or {}).get("key", "")
        age = max(0.0, (job.get("as_of") or datetime.now(UTC).timestamp()) - job["created_at"])
        table.add_row(
            job["id"],
            Text(job["status"], style=_STATUS_STYLES.get(job["status"], "")),
            Text(dataset),
            Text(job.get("fine_tuned_model") or ""),
            duration(round(age)),
            *([Text(job.get("waiting_for") or "")] if waiting else []),
        )
    out.print(table)
    for note in dict.fromkeys(line for job in found for line in notes_of(job).values()):
        err.print(f"note: {note}", markup=False)


def pause(job: Annotated[str, typer.Argument(help="The id of the job.")], folder: TargetOption = None) -> None:
    """Pause a job: a training keeps a checkpoint and gives back the GPU."""
    with Client(resolve(folder)) as client:
        client.pause(job)
    err.print(f"{job} is paused: `tunestream resume {job}` lets it go on")


def resume(job: Annotated[str, typer.Argument(help="The id of a paused job.")], folder: TargetOption = None) -> None:
    """Let a paused job go on, from its newest checkpoint."""
    with Client(resolve(folder)) as client:
        client.resume(job)
    err.print(f"{job} goes on: `tunestream watch {job}` follows it")


def cancel(job: Annotated[str, typer.Argument(help="The id of the job.")], folder: TargetOption = None) -> None:
    """Cancel a job."""
    with Client(resolve(folder)) as client:
        answer = client.cancel(job)
    done = answer["status"] == "cancelled"
    err.print(f"{job} is cancelled" if done else f"{job} will be cancelled; it is still {answer['status']}")


def retry(
    job: Annotated[str, typer.Argument(help="The id of a job that has ended.")],
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STAGE",
            help=f"The stage to begin from ({', '.join(RUNNER_STAGES)}); by default the one that failed.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the new job until it ends.")] = False,
    folder: TargetOption = None,
) -> None:
    """Try a job again from the stage in which it failed: print the id of the new job. What was decided before is taken
    over."""
    target = resolve(folder)
    with Client(target) as client:
        made = client.retry(job, from_)
    typer.echo(made["id"])
    if watch:
        _watch(target, made["id"], expected=True)
        return
    stage = (made.get("origin") or {}).get("from_stage")
    err.print(f"{job} begins again from {stage or 'the beginning'}: `tunestream watch {made['id']}` follows it")


def _watch(target: Target, job: str, *, expected: bool) -> None:
    with Client(target) as client:
        snapshots = follow(client, job, expected=expected)
        last = Snapshot(None, [])
        try:
            if out.is_terminal and not out.is_dumb_terminal:
                live = LiveView(job, time.time)
                with Live(get_renderable=live.render, console=out, refresh_per_second=8):
                    for last in snapshots:
                        live.update(last)
            else:
                lines = PlainView(time.time)
                for last in snapshots:
                    for line in lines(last):
                        typer.echo(line)
        except KeyboardInterrupt:
            err.print(
                f"\nthe job goes on: `tunestream watch {job}` follows it again, `tunestream cancel {job}` ends it"
            )
            raise typer.Exit(INTERRUPTED) from None
        finally:
            if target.jaeger_url and last.job and (trace_id := last.job.get("trace_id")):
                err.print(f"trace: {jaeger.link(target.jaeger_url, trace_id)}", soft_wrap=True)
    assert last.job is not None, "the last snapshot is final"
    if last.job["status"] != "succeeded":
        raise failure(last.job)
    for number, line in enumerate(result_lines(last.job)):
        out.print(Text(line, style="bold green" if number == 0 and last.job.get("deployment") else ""), soft_wrap=True)
