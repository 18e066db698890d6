"""Reports the progress of a run: messages, or lines for people, on stdout; and `metrics.jsonl`."""

from __future__ import annotations

import csv
import io
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from services.trainer.engine.messages import Failed, Message, PhaseBegan, StepDone, StepRow

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
        self._sending = threading.Lock()  # the thread that writes checkpoints sends, too

    def send(self, message: Message) -> None:
        """Write a message to stdout, or a line that says the same to a person."""
        with self._sending:
            sys.stdout.write(f"{message.line() if self.events else _for_people(message)}\n")
            sys.stdout.flush()

    def phase(self, name: str) -> None:
        """Report that a phase began."""
        self.send(PhaseBegan(at=time.time(), phase=name))

    def start_rows(self, so_far: bytes) -> None:
        """Begin `metrics.jsonl` with `so_far`: the rows up to the checkpoint that the run continues from."""
        self.rows_file.write_bytes(so_far)

    def step(self, row: StepRow, eta_seconds: float) -> None:
        """Report a step, and add its row to `metrics.jsonl`."""
        with self.rows_file.open("a") as file:
            file.write(json.dumps(row.columns()) + "\n")
        self.send(StepDone(at=time.time(), **row.columns(), eta_seconds=round(eta_seconds, 1)))

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
            f"lr {message.learning_rate:.2e}  {message.tokens_per_second:.0f} tokens/s  "
            f"{_duration(message.eta_seconds)} left"
        )
    if isinstance(message, Failed):
        return f"error: {message.message}"
    fields = message.fields()
    if isinstance(message, PhaseBegan):
        details = ", ".join(f"{key} {value}" for key, value in fields.items() if key != "phase")
        return f"{message.phase}: {details}" if details else f"{message.phase} ..."
    details = ", ".join(f"{key} {_short(value)}" for key, value in fields.items() if value is not None)
    return f"{message.event}: {details}"


def _short(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"
