"""Shows the progress of a job: moving bars on a terminal, one line per change elsewhere.

The api may be newer than this command: a stage, a state or a type of event that is not known is shown by its name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cli.client import Json
from cli.jobs.figures import duration, is_number, metrics, phase
from cli.jobs.follow import Snapshot
from shared.events import STAGE_NAMES

SHOWN_EVENTS = 6
BAR_WIDTH = 30
TOLD_SECONDS = 5.0
"""How often the view for logs says how far a training is."""
RESUMED_SECONDS = 5.0
"""A stage that waited goes on once it has worked for so long; a try in vain is shorter."""

_STYLES = {
    "waiting": "dim",
    "running": "yellow",
    "retrying": "magenta",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "red",
}
_WAITS = "magenta"
_MARKS = {"waiting": "·", "completed": "✓", "failed": "✗", "cancelled": "✗"}


def stage_names(job: Json | None) -> tuple[str, ...]:
    """The stages in order: those of the api as it orders them, then those that it does not mention."""
    reported = job.get("stages") or () if job else ()
    return tuple(dict.fromkeys(("ingest", *reported, *STAGE_NAMES)))


def stage_of(job: Json | None, name: str) -> Json:
    """One stage of the job, with its `state`. Ingest is completed as soon as there is a job."""
    if job is None:
        return {"state": "running" if name == "ingest" else "waiting"}
    if name == "ingest":
        return {"state": "completed"}
    return {"state": "waiting", **((job.get("stages") or {}).get(name) or {})}


def _roughly(seconds: float) -> str:
    return f"{round(seconds)} s" if round(seconds) < 60 else duration(seconds)


def waits(stage: Json) -> str:
    """What holds a stage up, such as `waits: the hub does not answer (since 40 s, next try in 12 s)`; or empty."""
    if not stage.get("waiting_for"):
        return ""
    details, times = stage.get("waiting") or {}, []
    if is_number(since := details.get("seconds")):
        times.append(f"since {_roughly(since)}")
    if is_number(again := details.get("next_try_seconds")):
        times.append(f"next try in {_roughly(again)}" if again >= 1 else "is tried now")
    return f"waits: {stage['waiting_for']}" + (f" ({', '.join(times)})" if times else "")


def notes_of(job: Json | None) -> dict[str, str]:
    """What the api says of what is away, by the message: `Kafka does not answer: … (for 40 s)`."""
    found = {}
    for note in (job or {}).get("notes") or ():
        lasted = f" (for {_roughly(note['seconds'])})" if note.get("seconds") else ""
        found[str(note.get("message"))] = f"{note.get('message')}{lasted}"
    return found


def seconds_of(stage: Json, now: float) -> float | None:
    """How long the stage took, or has been running; None: it has not started. `now` in seconds since the epoch."""
    if stage.get("started_at") is None:
        return None
    end = stage.get("finished_at")
    return max(0.0, float(end if end is not None else now) - float(stage["started_at"]))


class PlainView:
    """The view for logs and pipes. It is called with each snapshot, and returns the new lines."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._states: dict[str, tuple[str, str | None]] = {}
        self._notes: dict[str, str] = {}
        self._resumed: dict[str, float] = {}
        """When each stage whose last line says that it waits was first seen at work."""
        self._counts: dict[str, Any] = {}
        self._trouble = ""
        self._told_at = float("-inf")
        self._untold: Json | None = None
        """The last step of the training, if no line says it yet."""
        self._progress: Json | None = None

    def __call__(self, snapshot: Snapshot) -> list[str]:
        lines = []
        if snapshot.trouble != self._trouble:
            self._trouble = snapshot.trouble
            lines.append(f"api: {snapshot.trouble or 'answers again'}")
        if snapshot.job is not None:
            lines += self._changed_notes(notes_of(snapshot.job))
        trainer = stage_of(snapshot.job, "trainer")
        for event in snapshot.events:
            lines += self._step(event, trainer) if event.get("type") == "metrics" else [_line(event)]
        lines += self._training(trainer)
        for name in stage_names(snapshot.job):
            stage = stage_of(snapshot.job, name)
            shown, before = (stage["state"], stage.get("waiting_for")), self._states.get(name, ("waiting", None))
            tried = self._only_tried(name, shown[0], waited=before[1] is not None)
            if shown != before and not tried:
                self._states[name] = shown
                lines.append(self._changed(name, stage))
            elif name == "evaluator" and stage["state"] == "running" and stage.get("step") != self._counts.get(name):
                self._counts[name] = stage.get("step")
                lines.append(f"{name}: {_count(stage)}")
        return lines

    def _step(self, event: Json, stage: Json) -> list[str]:
        """The line of a step: each that was validated, and of the others one every few seconds."""
        data = event.get("data") or {}
        if is_number(step := data.get("step")) and is_number(reached := stage.get("step")) and step >= reached:
            data = data | {"eta_seconds": stage.get("eta_seconds")}  # that of an old step is over
        self._untold = event = event | {"data": data}
        validated = is_number(data.get("valid_loss")) or is_number(data.get("full_valid_loss"))
        return self._tell(_figures(event)) if validated or self._is_time() else []

    def _training(self, stage: Json) -> list[str]:
        """The last step, once no other follows soon; and how far it is while no step ends."""
        running = stage["state"] in ("running", "retrying")
        if self._untold is not None and (self._is_time() or not running):
            return self._tell(_figures(self._untold))
        progress = (stage.get("data") or {}).get("progress")
        if not running or progress == self._progress or not self._is_time():
            return []
        self._progress = progress
        return self._tell(text) if (text := _training(stage, {})) else []

    def _is_time(self) -> bool:
        return self._clock() - self._told_at >= TOLD_SECONDS

    def _tell(self, figures: str) -> list[str]:
        self._told_at, self._untold = self._clock(), None
        return [f"trainer: {figures}"]

    def _only_tried(self, name: str, state: str, *, waited: bool) -> bool:
        """Whether a stage that waited has been at work for so short a time that it may be a try in vain."""
        if waited and state in ("running", "retrying"):
            return self._clock() - self._resumed.setdefault(name, self._clock()) < RESUMED_SECONDS
        self._resumed.pop(name, None)
        return False

    def _changed_notes(self, notes: dict[str, str]) -> list[str]:
        before, self._notes = self._notes, notes
        over = [f"over: {message}" for message in sorted(before.keys() - notes.keys())]
        return over + [f"note: {line}" for message, line in notes.items() if message not in before]

    def _changed(self, name: str, stage: Json) -> str:
        if waiting := waits(stage):
            return f"{name} {waiting}"
        seconds = seconds_of(stage, self._clock()) if stage.get("finished_at") is not None else None
        took = f" after {duration(seconds)}" if seconds is not None else ""
        return f"{name}: {stage['state']}{took}"


def _message(event: Json) -> str:
    return str(event.get("message") or event.get("type") or "")


def _figures(event: Json) -> str:
    return metrics(event.get("data") or {}) or _message(event)


def _training(stage: Json, told: Json) -> str:
    """How far the trainer is, in one line. `told`: what the events said."""
    data = {**told, **(stage.get("data") or {})}
    if lasting := phase(data):
        memory = {name: value for name, value in data.items() if name.endswith("memory_bytes")}
        return "  ".join(filter(None, (lasting, metrics(memory))))
    data["eta_seconds"] = stage.get("eta_seconds")
    for name in ("step", "total_steps"):
        data[name] = stage.get(name) if stage.get(name) is not None else data.get(name)
    return metrics(data)


def _line(event: Json) -> str:
    level = f"{event['level']}: " if event.get("level") in ("warn", "error") else ""
    return f"  {level}{_message(event)}"


class LiveView:
    """The view for a terminal. `update` takes each snapshot; rich calls `render`."""

    def __init__(self, job_id: str, clock: Callable[[], float]) -> None:
        self._job_id = job_id
        self._clock = clock
        self._snapshot = Snapshot(None, [])
        self._updated = clock()
        self._recent: deque[Json] = deque(maxlen=SHOWN_EVENTS)
        self._metrics: Json = {}
        self._spinner = Spinner("dots", style="yellow")

    def update(self, snapshot: Snapshot) -> None:
        self._snapshot, self._updated = snapshot, self._clock()
        for event in snapshot.events:
            if event.get("type") == "metrics":
                self._metrics |= {name: value for name, value in (event.get("data") or {}).items() if value is not None}
            else:
                self._recent.append(event)

    def render(self) -> RenderableType:
        job = self._snapshot.job
        title = Text.assemble((self._job_id, "bold"), "  ", ((job or {}).get("status", "submitted"), "cyan"))
        if self._snapshot.trouble:
            title.append(f"  {self._snapshot.trouble}", style="magenta")
        notes = [Text(f"  {line}", style=_WAITS) for line in notes_of(job).values()]
        return Group(title, *notes, self._stages(job), *self._training(job), *map(_recent, self._recent))

    def _stages(self, job: Json | None) -> Table:
        table = Table.grid(padding=(0, 2))
        now = self._clock()
        if job and is_number(job.get("as_of")):
            now += job["as_of"] - self._updated  # by the clock of the api, which may differ from ours
        for name in stage_names(job):
            stage = stage_of(job, name)
            state, waiting = stage["state"], waits(stage)
            style = _WAITS if waiting else _STYLES.get(state, "")
            seconds = seconds_of(stage, now)
            table.add_row(
                self._spinner
                if waiting or state in ("running", "retrying")
                else Text(_MARKS.get(state, " "), style=style),
                name,
                Text(state, style=style),
                _bar(stage),
                Text(duration(seconds) if seconds is not None else "", style="dim", justify="right"),
                Text(_stage_message(name, stage), style=style if waiting else "dim", overflow="ellipsis", no_wrap=True),
            )
        return table

    def _training(self, job: Json | None) -> list[Text]:
        text = _training(stage_of(job, "trainer"), self._metrics)
        return [Text(f"  {text}", style="cyan")] if text else []


def _bar(stage: Json) -> RenderableType:
    step, total = stage.get("step"), stage.get("total_steps")
    if stage["state"] == "completed":
        return ProgressBar(total=1, completed=1, width=BAR_WIDTH)
    if step is not None and total:
        return ProgressBar(total=total, completed=step, width=BAR_WIDTH)
    if stage["state"] in ("running", "retrying"):
        return ProgressBar(total=None, width=BAR_WIDTH, pulse=True)
    return ProgressBar(total=1, completed=0, width=BAR_WIDTH)


def _count(stage: Json) -> str:
    step, total = stage.get("step"), stage.get("total_steps")
    counted = f"{step}/{total}" if step is not None and total is not None else ""
    return "  ".join(filter(None, (counted, stage.get("message") or "")))


def _stage_message(name: str, stage: Json) -> str:
    """What a stage says while it works or waits, or why it failed. The trainer's figures have a line of their own."""
    if waiting := waits(stage):
        return waiting
    if stage["state"] == "failed" or (stage["state"] in ("running", "retrying") and name != "trainer"):
        return _count(stage)
    return ""


def _recent(event: Json) -> Text:
    style = {"warn": "yellow", "error": "red"}.get(event.get("level", ""), "dim")
    return Text(f"  {_message(event)}", style=style, overflow="ellipsis", no_wrap=True)
