"""The events of jobs and of the models that they make, one class per topic, and the list of all events."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.events.event import RUNNER_STAGES, STAGE_NAMES, Event, ProgressState, StageName
from shared.events.limits import (
    DEFAULT_PROJECT,
    ITEMS,
    Count,
    Id,
    JobId,
    JsonObject,
    Name,
    ProjectId,
    ShownName,
    Text,
)
from shared.events.models import FrozenModel
from shared.events.references import DatasetPointer, FolderReference, Reference
from shared.events.served import Served
from shared.events.spec import JobSpec, Method, Origin, TaskKind
from shared.events.synthesis import SynthesisProgress, SynthesisRequested


class DatasetUploaded(Event):
    """A dataset was uploaded for training. A stranger needs to send only `{"dataset": {"bucket", "key"}}`."""

    topic: ClassVar[str] = "dataset.uploaded"
    sent_by = ("anyone", "ingest")
    read_by = ("ingest", "validate", "api")
    job_id: JobId | None = None
    """Set by ingest; a stranger leaves it out."""
    dataset: DatasetPointer
    validation_file: DatasetPointer | None = None
    """Rows to validate on, instead of a share of the dataset."""
    spec: JobSpec | None = None
    origin: Origin | None = None


class Split(FrozenModel):
    """One split: a JSONL object of validated rows. `tokens` are counted with the tokenizer of the base model."""

    reference: Reference
    examples: Count
    tokens: Count


class DatasetValidated(Event):
    """The dataset passed validation; its rows are counted and split."""

    topic: ClassVar[str] = "dataset.validated"
    sent_by = ("validate",)
    read_by = ("trainer", "api")
    job_id: JobId
    method: Method
    format: Literal["chat", "completion", "preference"]
    train: Split
    validation: Split | None = None
    test: Split | None = None
    report: Reference
    longest_tokens: Count = 0
    max_length: Count | None = None
    """The most tokens that a row may have; `hyperparameters.over_length` says what happened to longer rows."""
    estimated_seconds: float | None = None
    base_profile: Id | None = None
    """The digest of the base's profile that the rows were checked with, `bases/{digest}.json` in the system bucket."""
    served: Served | None = None
    """How the trained turns compare with what vLLM makes of them."""
    task: TaskKind | None = None
    """What the answers are: labels, JSON, tool calls or free text."""
    page: Reference | None = None
    """The report as a page."""


class Overfitting(FrozenModel):
    """Whether the training overfitted. It is judged by the trend of the validation loss, compared with the training
    loss."""

    verdict: Literal["healthy", "overfitting", "underfitting", "unknown"]
    reason: Text
    best_step: Count | None = None


class CheckpointInfo(FrozenModel):
    step: Count
    prefix: Name
    train_loss: float | None = None
    valid_loss: float | None = None


class TrainingUsage(FrozenModel):
    """What a training took, beside what was estimated before its first step."""

    device: Name
    """Its name, such as `NVIDIA H100 80GB HBM3` or `CPU`."""
    processes: Count = 1
    """On how many such devices."""
    tokens: Count = 0
    """Read in all epochs, without padding."""
    seconds: float
    """Of all steps, validations and checkpoints."""
    estimated_seconds: float | None = None
    peak_memory_bytes: Count | None = None
    estimated_memory_bytes: Count | None = None
    money: float | None = None
    """In the currency of the deployment; None: it has no price."""


class TrainingCompleted(Event):
    """An adapter was trained; it is not evaluated yet."""

    topic: ClassVar[str] = "training.completed"
    sent_by = ("trainer",)
    read_by = ("evaluator", "api")
    job_id: JobId
    model: Name
    base: Name
    method: Method = "supervised"
    adapter: FolderReference
    rank: Count
    steps: Count
    epochs: float
    trained_tokens: Count
    train_loss: float
    valid_loss: float | None = None
    overfitting: Overfitting
    hyperparameters: JsonObject = {}
    checkpoints: Annotated[tuple[CheckpointInfo, ...], Field(max_length=ITEMS)] = ()
    """The adapters at the ends of epochs. Each answers as `{model}:ckpt-step-{step}`."""
    artifacts: Annotated[dict[Name, Reference], Field(max_length=ITEMS)] = {}
    """`curves.png`, `metrics.jsonl`, `results.csv`, `preview.txt`, `hyperparameters.json`."""
    test: Split | None = None
    train: Split | None = None
    seconds: float = 0.0
    skipped_steps: Count = 0
    """Steps that were not taken, because their loss or its gradient was not a finite number."""
    diverged_at: Count | None = None
    """The step at which training ended, because too many steps in a row were skipped; the best adapter was kept."""
    usage: TrainingUsage | None = None
    """What it took; None: of an older trainer."""
    project: ProjectId = DEFAULT_PROJECT
    """The project of the job."""
    base_profile: Id | None = None
    """As in `dataset.validated`."""
    served: Served | None = None
    """How the trained turns compare with what vLLM makes of them."""


class Interval(FrozenModel):
    """A mean difference with its paired confidence interval."""

    mean: float
    low: float
    high: float
    confidence: float


class EvalCompleted(Event):
    """The tuned model was compared with its base; `passed` decides whether the alias moves."""

    topic: ClassVar[str] = "eval.completed"
    sent_by = ("evaluator",)
    read_by = ("inference", "api")
    job_id: JobId
    model: Name
    base: Name
    examples: Count
    metric: Name
    scores: Annotated[dict[Id, Annotated[dict[Id, float], Field(max_length=ITEMS)]], Field(max_length=ITEMS)]
    """`{"base" | "few_shot" | "tuned" | "champion": {metric: mean}}`."""
    delta: Interval
    passed: bool
    reasons: Annotated[tuple[Text, ...], Field(max_length=ITEMS)]
    report: Reference
    html: Reference
    served: Served | None = None
    """How the trained turns compare with what vLLM makes of them."""


class ModelDeployed(Event):
    """From now on an alias answers with another model."""

    topic: ClassVar[str] = "model.deployed"
    sent_by = ("inference",)
    read_by = ("api", "anyone")
    job_id: JobId
    """The job that trained it."""
    model: Name
    """The immutable id, `ft:…`."""
    alias: Name
    """The name behind which this model answers now."""
    previous: Name | None = None
    """The model that answered behind this name before."""
    endpoint: Name
    """`base_url` of an OpenAI client."""
    traffic: float = 1.0
    """The share of the alias's requests that this model answers."""


class JobProgress(Event):
    """State changes and training metrics. `data` holds numbers and short words, never user text."""

    topic: ClassVar[str] = "job.progress"
    sent_by = RUNNER_STAGES
    read_by = ("api", "anyone")
    job_id: JobId
    stage: StageName | Id
    """A reader accepts a stage that it does not know."""
    state: ProgressState | Id
    """A reader takes a state that it does not know as `running`."""
    attempt: Count | None = None
    """The attempt that it is about, from 1. What a later attempt says is news, whatever the clocks say."""
    message: Text = ""
    step: Count | None = None
    total_steps: Count | None = None
    eta_seconds: float | None = None
    """Estimated seconds until the stage ends."""
    data: JsonObject = {}


class JobFailed(Event):
    """The job ended without a model. The code `cancelled` means that the user cancelled it."""

    topic: ClassVar[str] = "job.failed"
    sent_by = STAGE_NAMES
    read_by = ("api", "anyone")
    job_id: JobId
    stage: StageName | Id
    """A reader accepts a stage that it does not know."""
    code: Id
    message: Text
    param: ShownName | None = None
    """The field of the job that is wrong."""


class JobControl(Event):
    """A user's request about a job that is under way."""

    topic: ClassVar[str] = "job.control"
    sent_by = ("api",)
    read_by = ("ingest", *RUNNER_STAGES)
    job_id: JobId
    action: Literal["cancel", "pause", "resume"]
    """`pause` lets the job rest until `resume`. `resume` also says of a new job that it is a retry: ingest makes it at
    once."""


class InferenceLogged(Event):
    """One sampled request. `request` and `response` are present only when content logging is switched on."""

    topic: ClassVar[str] = "inference.logged"
    sent_by = ("inference",)
    read_by = ("evaluator",)
    request_id: Id
    job_id: JobId | None = None
    model: Name
    alias: Name | None = None
    route: Name
    status: Count
    latency_seconds: float
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    finish_reason: Id | None = None
    request: JsonObject | None = None
    response: JsonObject | None = None


class InferenceFeedback(Event):
    """What a user thought of an answer."""

    topic: ClassVar[str] = "inference.feedback"
    sent_by = ("inference",)
    read_by = ("evaluator",)
    request_id: Id
    job_id: JobId | None = None
    model: Name | None = None
    rating: Literal["up", "down"]
    comment: Text | None = None


class ModelDegraded(Event):
    """A served model got worse: which alert fired, and its figures."""

    topic: ClassVar[str] = "model.degraded"
    sent_by = ("evaluator",)
    read_by = ("ingest", "anyone")
    job_id: JobId | None = None
    model: Name
    alert: Name
    figures: Annotated[dict[Id, float], Field(max_length=ITEMS)] = {}


EVENTS: tuple[type[Event], ...] = (
    DatasetUploaded,
    DatasetValidated,
    TrainingCompleted,
    EvalCompleted,
    ModelDeployed,
    JobProgress,
    JobFailed,
    JobControl,
    InferenceLogged,
    InferenceFeedback,
    ModelDegraded,
    SynthesisRequested,
    SynthesisProgress,
)
BY_TOPIC: dict[str, type[Event]] = {event.topic: event for event in EVENTS}
