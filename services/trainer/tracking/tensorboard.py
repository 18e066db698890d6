"""TensorBoard: event files in a folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from services.trainer.engine.messages import StepDone
from services.trainer.tracking.tracker import Outcome, Run, figures


class TensorBoard:
    """Writes a run below `folder`, in a folder with the name of the job."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._last = 0

    def begin(self, run: Run, first_step: int) -> None:
        self._writer = EventFileWriter(str(self._folder / run.job_id))
        self._begin_at(first_step)
        rows = [f"| {name} | {value} |" for name, value in {**run.facts, **run.parameters}.items()]
        self._add(0, _text("job", "\n".join(["| | |", "|---|---|", *rows])))

    def log(self, steps: Sequence[StepDone]) -> None:
        for step in steps:
            if step.step <= self._last:
                self._begin_at(step.step)
            values = [Summary.Value(tag=name, simple_value=value) for name, value in figures(step).items()]
            self._add(step.step, Summary(value=values), step.at)
            self._last = step.step
        self._writer.flush()

    def end(self, outcome: Outcome) -> None:
        self._writer.close()

    def _begin_at(self, step: int) -> None:
        """Let readers forget this step and later ones, which an attempt before may have written."""
        start = Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START))
        self._writer.add_event(start)
        self._last = step - 1

    def _add(self, step: int, summary: Any, at: float | None = None) -> None:
        self._writer.add_event(Event(wall_time=time.time() if at is None else at, step=step, summary=summary))


def _text(tag: str, text: str) -> Any:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=TensorShapeProto())
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
