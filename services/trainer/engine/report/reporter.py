"""Reports the progress of a run: messages, or lines for people, on stdout; and `metrics.jsonl`."""

from __future__ import annotations

import csv
import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.trainer.domain.memory_plan import estimate_in_words, shortage_in_words
from services.trainer.engine.messages import (
    Estimated,
    Failed,
    MemoryLowered,
    Message,
    PhaseBegan,
    Progress,
    StepDone,
    StepRow,
)
from services.trainer.engine.report.pace import Pace
from services.trainer.engine.report.speech import EVERY_SECONDS, Speech, Usage

RESULT_FIELDS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}
"""The columns of OpenAI's result file, and the fields of `StepRow` that they hold."""


class Reporter:
    """Writes to stdout, and to `metrics.jsonl` in `out`. `events`: stdout gets messages for the parent process, not
    lines for people."""

    def __init__(self, out: Path, *, events: bool) -> None:
        self.out = out
        self.events = events
        self.rows_file = out / "metrics.jsonl"
        self._sending = threading.Lock()  # other threads send, too: checkpoints, and how far the run is
        self._speech: Speech | None = None

    def send(self, message: Message) -> None:
        """Write a message to stdout, or a line that says the same to a person."""
        with self._sending:
            sys.stdout.write(f"{message.line() if self.events else _for_people(message)}\n")
            sys.stdout.flush()
        if self._speech is not None:
            self._speech.heard(message)

    @contextmanager
    def speaking(self, usage: Usage, every: float = EVERY_SECONDS) -> Iterator[None]:
        """Within the block, tell how far the run is whenever nothing was said for `every` seconds."""
        with Speech(self.send, usage, every) as self._speech:
            yield

    def count(self, done: int, total: int | None = None) -> None:
        """Of what the phase has to do, so much is done. It costs nothing, and is told when it is time."""
        if self._speech is not None:
            self._speech.count(done, total)

    def follow(self, pace: Pace) -> None:
        """The training begins, and `pace` measures it."""
        if self._speech is not None:
            self._speech.follow(pace)

    def phase(self, name: str) -> None:
        """Report that a phase began."""
        self.send(PhaseBegan(at=time.time(), phase=name))

    def start_rows(self, so_far: bytes) -> None:
        """Begin `metrics.jsonl` with `so_far`: the rows up to the checkpoint that the run continues from."""
        self.rows_file.write_bytes(so_far)

    def step(self, row: StepRow) -> None:
        """Report a step, and add its row to `metrics.jsonl`."""
        with self.rows_file.open("a") as file:
            file.write(json.dumps(row.columns()) + "\n")
        measured = self._speech.figures() if self._speech is not None else {}
        self.send(StepDone.model_validate({"at": time.time(), "eta_seconds": 0.0, **row.columns(), **measured}))

    @property
    def rows_size(self) -> int:
        """The bytes of `metrics.jsonl` so far; later rows are only added."""
        return self.rows_file.stat().st_size

    def rows(self) -> list[StepRow]:
        """All rows of `metrics.jsonl`."""
        return [StepRow.model_validate_json(line) for line in self.rows_file.read_text().splitlines()]

    def write_results(self) -> None:
        """`results.csv`, as the OpenAI API returns it for a finished job."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(RESULT_FIELDS)
        for row in self.rows():
            columns = row.columns()
            writer.writerow([columns.get(source, "") for source in RESULT_FIELDS.values()])
        (self.out / "results.csv").write_text(table.getvalue())


def _for_people(message: Message) -> str:
    if isinstance(message, StepDone):
        valid = "" if message.valid_loss is None else f"  valid {message.valid_loss:.4f}"
        loss = "skipped, not a finite loss" if message.train_loss is None else f"loss {message.train_loss:.4f}"
        return (
            f"step {message.step}/{message.total_steps}  {loss}{valid}  "
            f"lr {message.learning_rate:.2e}  {_speed(message)}"
        )
    if isinstance(message, Progress):
        of = "" if message.total is None else f" of {message.total}"
        counted = [] if message.done is None else [f"{message.done}{of}"]
        counted += [] if message.step is None else [f"step {message.step}/{message.total_steps}"]
        return f"{message.phase}: {'  '.join([_duration(message.seconds), *counted, _speed(message)])}"
    if isinstance(message, Estimated):
        return estimate_in_words(message.memory_bytes, message.tokens_per_second, message.seconds)
    if isinstance(message, MemoryLowered):
        return shortage_in_words(message.step, message.micro_tokens, recompute=message.recompute)
    if isinstance(message, Failed):
        return f"error: {message.message}"
    fields = message.fields()
    if isinstance(message, PhaseBegan):
        details = ", ".join(f"{key} {value}" for key, value in fields.items() if key != "phase")
        return f"{message.phase}: {details}" if details else f"{message.phase} ..."
    details = ", ".join(f"{key} {_short(value)}" for key, value in fields.items() if value is not None)
    return f"{message.event}: {details}"


def _speed(message: StepDone | Progress) -> str:
    """The figures that both kinds of message have, those that are known."""
    parts = []
    if message.tokens_per_second is not None:
        parts.append(f"{message.tokens_per_second:.0f} tokens/s")
    if message.mfu is not None:
        parts.append(f"MFU {message.mfu:.1%}")
    if message.memory_bytes is not None and message.peak_memory_bytes is not None:
        parts.append(f"{message.memory_bytes / 2**30:.1f} GiB (peak {message.peak_memory_bytes / 2**30:.1f})")
    if message.eta_seconds is not None:
        parts.append(f"{_duration(message.eta_seconds)} left")
    return "  ".join(parts)


def _short(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"
