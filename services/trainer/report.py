"""What a run tells while it runs: events or lines for people on stdout, and `metrics.jsonl`."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

RESULT_FIELDS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}
"""The columns of OpenAI's result file, and where they come from."""


class Report:
    """`events`: one JSON object per line for the parent process, instead of lines for people; `at` in it is the time in
    seconds since the epoch."""

    def __init__(self, out: Path, *, events: bool) -> None:
        self.out = out
        self.events = events
        self.metrics = out / "metrics.jsonl"

    def say(self, event: str, **data: Any) -> None:
        line = json.dumps({"event": event, "at": time.time(), **data}) if self.events else _for_people(event, data)
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def begin(self, metrics_so_far: bytes) -> None:
        """Start `metrics.jsonl`, with the rows up to the checkpoint that is continued."""
        self.metrics.write_bytes(metrics_so_far)

    def step(self, row: dict[str, Any], eta_seconds: float) -> None:
        with self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.say("step", **row, eta_seconds=round(eta_seconds, 1))

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.metrics.read_text().splitlines()]

    def write_results(self) -> None:
        """`results.csv`, as the OpenAI API returns it for a finished job."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(RESULT_FIELDS)
        for row in self.rows():
            writer.writerow([row.get(source, "") for source in RESULT_FIELDS.values()])
        (self.out / "results.csv").write_text(table.getvalue())


def _for_people(event: str, data: dict[str, Any]) -> str:
    if event == "step":
        valid = f"  valid {data['valid_loss']:.4f}" if "valid_loss" in data else ""
        return (
            f"step {data['step']}/{data['total_steps']}  loss {data['train_loss']:.4f}{valid}  "
            f"lr {data['learning_rate']:.2e}  {data['tokens_per_second']:.0f} tokens/s  "
            f"{_duration(data['eta_seconds'])} left"
        )
    if event == "phase":
        details = ", ".join(f"{key} {value}" for key, value in data.items() if key != "phase")
        return f"{data['phase']} ..." if not details else f"{data['phase']}: {details}"
    if event == "error":
        return f"error: {data['message']}"
    return f"{event}: " + ", ".join(f"{key} {_short(value)}" for key, value in data.items() if value is not None)


def _short(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"
