"""What the training process tells its parent: messages while it runs, an exit code and a document at its end.

A message is one JSON object on a line of stdout (`--events`). The exit code says which document is in the output
folder: `result.json`, `error.json` or none.
"""

from __future__ import annotations

import json
from enum import IntEnum
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, JsonValue, TypeAdapter

from shared.errors import InputError
from shared.events import CheckpointInfo, FrozenModel, Method, Overfitting, Served


class ExitCode(IntEnum):
    """How the process ended; any other code is a crash. 65, 69, 70, 74, 75 and 78 are EX_DATAERR,
    EX_UNAVAILABLE, EX_SOFTWARE, EX_IOERR, EX_TEMPFAIL and EX_CONFIG of sysexits.h."""

    DONE = 0
    """`result.json` holds the result."""
    WRONG_INPUT = 65
    """The plan, the data or the base are wrong; `error.json` says what to change."""
    UNAVAILABLE = 69
    """Something outside does not answer, such as the model hub; `error.json` says what. Another try may succeed."""
    NO_SPACE = 74
    """A disk is full, so no document says which. Another try may succeed."""
    WRONG_SETTING = 78
    """A setting is wrong, such as the token of the model hub; `error.json` says which. An operator mends it."""
    STOPPED = 75
    """Stopped by SIGTERM or SIGINT; the newest checkpoint holds what was reached."""
    PROCESS_LOST = 70
    """Of the processes of a training on several GPUs, one has crashed; `error.json` says which, and how."""


class ProcessLost(Exception):
    """A process of a training on several GPUs has crashed or was killed, or does not answer; all have to end."""


# --- documents ----------------------------------------------------------------------------------------------------


class Lowered(FrozenModel):
    """Memory ran out at a step, which was done again with micro-batches of `micro_tokens` (0: an item at a time), and
    activations recomputed or not."""

    step: int
    micro_tokens: int
    recompute: bool


class TrainingResult(FrozenModel):
    """`result.json`: what came out of a run.

    `epochs` may be a fraction after early stopping. `train_loss` is the mean over the last epoch, `valid_loss` the best
    one (None: nothing to validate on), `saved_step` the step of the adapter that was saved. `*_examples` count rows.
    `skipped_steps`: steps that were not taken because their loss or gradient was not a finite number; `diverged_at`:
    the step at which so many followed each other that training ended (None: it did not). `attention`: its
    implementation, and why; `not_tuned`: parts of the base that no adapter of this run changes, each with the reason.
    """

    model: str
    base: str
    method: Method
    rank: int
    steps: int
    total_steps: int
    epochs: float
    trained_tokens: int
    train_loss: float
    valid_loss: float | None
    saved_step: int
    stopped_early: bool
    overfitting: Overfitting
    hyperparameters: dict[str, JsonValue]
    checkpoints: tuple[CheckpointInfo, ...]
    """The listed ones; their `prefix` is relative to the output folder."""
    train_examples: int
    valid_examples: int
    dropped_examples: int
    truncated_examples: int
    seconds: float
    skipped_steps: int = 0
    diverged_at: int | None = None
    served: Served | None = None
    """How the rows compare with what the server makes of them; None: the plan does not say."""
    attention: str = ""
    not_tuned: tuple[str, ...] = ()

    estimated_memory_bytes: int | None = None
    """At the peak, as the plan said before the first step; and what it was in the process that ended."""
    peak_memory_bytes: int | None = None
    estimated_seconds: float | None = None
    """Of all steps and validations; None: not known, as with experts."""
    lowered: tuple[Lowered, ...] = ()
    """How often memory ran out after the first step."""
    device: str = ""
    """Its name; and on how many such devices."""
    processes: int = 1
    tokens: int = 0
    """Read in all steps, without padding."""
    money: float | None = None
    """What the seconds cost, if a price was given."""


class ErrorDocument(FrozenModel):
    """`error.json`: what is wrong with the input, or what does not answer. The former becomes the `error` of the
    job."""

    code: str
    message: str
    param: str | None = None

    @classmethod
    def of(cls, error: InputError) -> ErrorDocument:
        """The document that describes `error`."""
        return cls(code=error.code, message=error.message, param=error.param)

    def exception(self) -> InputError:
        """The error that the process ended with."""
        return InputError(self.code, self.message, self.param)


# --- messages -----------------------------------------------------------------------------------------------------


class Message(FrozenModel):
    """Base of all messages. `at`: when it was sent, in seconds since the epoch."""

    event: str
    at: float

    def fields(self) -> dict[str, Any]:
        """The fields of this kind of message by name, without optional ones that were not given."""
        return self.model_dump(exclude={"event", "at"}, exclude_unset=True)

    def line(self) -> str:
        """The message as JSON on one line."""
        return json.dumps({"event": self.event, "at": self.at, **self.fields()})


class Started(Message):
    """The process has read its plan and chosen a device."""

    event: Literal["started"] = "started"
    device: str
    model: str
    base: str
    method: Method


class PhaseBegan(Message):
    """A phase began: tokenize, load, prepare, fit, `epoch N`, save. The one before it has ended.

    For `load`, `rows` and `sequences` say what was tokenized for training. For `fit`, `micro_tokens` and `recompute`
    say what was found to fit into the memory of the GPU.
    """

    event: Literal["phase"] = "phase"
    phase: str
    rows: int | None = None
    sequences: int | None = None
    micro_tokens: int | None = None
    recompute: bool | None = None


class HyperparametersChosen(Message):
    """The dataset is read, and what was `auto` is chosen."""

    event: Literal["hyperparameters"] = "hyperparameters"
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float | None = None
    """Of DPO."""


class Estimated(Message):
    """What the run will need, before its first step: memory at the peak, tokens per second, and seconds of all steps
    with their validations. `step`: finished steps, if it continues."""

    event: Literal["estimated"] = "estimated"
    memory_bytes: int
    tokens_per_second: float | None = None
    seconds: float | None = None
    step: int = 0


class MemoryLowered(Lowered, Message):
    """Memory ran out at a step that is now done again."""

    event: Literal["memory_lowered"] = "memory_lowered"


class Resumed(Message):
    """The run continues from the checkpoint of this step."""

    event: Literal["resumed"] = "resumed"
    step: int


class StepRow(FrozenModel):
    """A row of `metrics.jsonl`: what one step did.

    `epoch`: how many epochs are done, in fractions. `tokens`: how many the batch has, without padding. `valid_*`:
    measured on a fixed sample of the validation rows, if a validation followed the step; `full_valid_*`: measured on
    all of them, at the end of an epoch; a loss that was not a finite number is left out. `skipped`: the loss or its
    gradient was not a finite number, so the step was not taken; then the row has no `train_*` and no `grad_norm`.
    """

    step: int
    total_steps: int
    epoch: float
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    learning_rate: float
    grad_norm: float | None = None
    tokens: int
    tokens_per_second: float
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    full_valid_loss: float | None = None
    full_valid_mean_token_accuracy: float | None = None
    skipped: bool = False

    def columns(self) -> dict[str, Any]:
        """What was measured, by column."""
        return self.model_dump(include=set(StepRow.model_fields), exclude_unset=True)


class StepDone(StepRow, Message):
    """A step was taken. Its row is in `metrics.jsonl`; only `tokens_per_second` is of the last steps here, as in
    `Progress`, whose other fields it has, too."""

    event: Literal["step"] = "step"
    eta_seconds: float
    mfu: float | None = None
    memory_bytes: int | None = None
    peak_memory_bytes: int | None = None


class Progress(Message):
    """How far the run is; it is sent when nothing else was for a few seconds.

    `seconds`: for how long the phase has lasted. `done` of `total`: of what it has to do; rows, while they are
    tokenized. `step`, `total_steps`: finished steps, and all. `eta_seconds`: until the last step, with validations and
    checkpoints. `tokens_per_second`: over the last steps, without padding. `mfu`: the share of the GPU's peak. The
    memory is that of the GPU, else of the process; its peak counts from the start, or since memory ran out.
    """

    event: Literal["progress"] = "progress"
    phase: str
    seconds: float
    done: int | None = None
    total: int | None = None
    step: int | None = None
    total_steps: int | None = None
    eta_seconds: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    memory_bytes: int | None = None
    peak_memory_bytes: int | None = None


class CheckpointWritten(Message):
    """A checkpoint is complete on the local disk. `path`: its folder, relative to the output folder.

    `listed`: it is the adapter at the end of an epoch, for the list in the result; else the whole state, to continue
    from.
    """

    event: Literal["checkpoint"] = "checkpoint"
    path: str
    step: int
    train_loss: float | None = None
    valid_loss: float | None = None
    listed: bool = False


class Stopped(Message):
    """The run was stopped from outside; the process ends with `ExitCode.STOPPED`."""

    event: Literal["stopped"] = "stopped"


class Completed(Message):
    """The run is done and everything is written; the process ends with `ExitCode.DONE`."""

    event: Literal["completed"] = "completed"
    steps: int
    train_loss: float
    valid_loss: float | None
    saved_step: int
    stopped_early: bool
    seconds: float
    skipped_steps: int = 0
    diverged_at: int | None = None
    verdict: str
    reason: str

    @classmethod
    def of(cls, result: TrainingResult, *, at: float) -> Completed:
        shared = {name: getattr(result, name) for name in cls.model_fields if name in TrainingResult.model_fields}
        return cls(at=at, **shared, verdict=result.overfitting.verdict, reason=result.overfitting.reason)


class Failed(ErrorDocument, Message):
    """What `error.json` holds; the process ends with `WRONG_INPUT`, `UNAVAILABLE`, `WRONG_SETTING` or
    `PROCESS_LOST`."""

    event: Literal["error"] = "error"


class Ended(Message):
    """A process that forks trainings says so of the last one, whose output is complete. `code`: as of a process;
    negative: the signal that ended it. Before that, it writes the line `ENDED` to stderr."""

    event: Literal["ended"] = "ended"
    code: int


ENDED = "--- the training has ended ---"

AnyMessage = (
    Started | PhaseBegan | HyperparametersChosen | Estimated | MemoryLowered | Resumed | StepDone | Progress
    | CheckpointWritten | Stopped | Completed | Failed | Ended
)  # fmt: skip
_KINDS = tuple(kind.model_fields["event"].default for kind in get_args(AnyMessage))
_adapter: TypeAdapter[AnyMessage] = TypeAdapter(Annotated[AnyMessage, Field(discriminator="event")])


def parse_message(line: bytes | str) -> AnyMessage | None:
    """The message on a line of stdout; None if a library printed the line, or if this version does not know this kind
    of message.

    Raises:
        ValidationError: a known message lacks a field.
    """
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or "at" not in found or found.get("event") not in _KINDS:
        return None
    return _adapter.validate_python(found)
