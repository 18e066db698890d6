"""Every event and every document that services exchange, as frozen pydantic models.

`docs/asyncapi.json` and `docs/schemas/` are generated from this file (`make docs`). Within `.v1` only optional
fields are added; readers ignore what they do not know.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

Auto = Literal["auto"]
Method = Literal["supervised", "dpo"]
StageName = Literal["ingest", "validate", "trainer", "evaluator", "inference"]
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)
"""In the order in which a job passes them. Each is also the name of a service."""
RUNNER_STAGES = STAGE_NAMES[1:]
"""The stages that `shared/runner.py` runs; ingest only makes the job."""
SERVICES = (*STAGE_NAMES, "api")
StageOutcome = Literal["completed", "failed", "cancelled"]
"""How a stage ends."""
ProgressState = Literal["started", "running", "checkpoint", "retrying", "completed", "not_promoted"]
"""What `job.progress` says of a stage."""


class FrozenModel(BaseModel):
    """Frozen; unknown fields are ignored (events evolve); inputs are hidden in errors (they may hold user text)."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


class StrictModel(BaseModel):
    """Frozen, and unknown fields are errors: for what a person writes, where a misspelt field must not pass."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


# --- references: where bytes lie, never the bytes -----------------------------------------------------------------


class Reference(FrozenModel):
    """One object. `etag` and `sha256` (hex) are what the reader verifies; `size` is in bytes."""

    bucket: str
    key: str
    etag: str
    size: int
    sha256: str


class DatasetPointer(FrozenModel):
    """What a stranger must say of a dataset: where it is. The rest is looked up."""

    bucket: str
    key: str
    etag: str | None = None
    size: int | None = None
    sha256: str | None = None
    """Hex."""


class FolderReference(FrozenModel):
    """A set of objects under `prefix`; `manifest` is a JSON object `{"files": {name: Reference}}`."""

    bucket: str
    prefix: str
    manifest: Reference


# --- the job's settings, as a user writes them (sidecar, event, API) ----------------------------------------------


class Hyperparameters(StrictModel):
    """`auto` values are chosen by the trainer from the dataset's size and written down with their reasons."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0)] = "auto"
    learning_rate: Auto | Annotated[float, Field(gt=0, le=1)] = "auto"
    beta: Auto | Annotated[float, Field(gt=0, le=2)] = "auto"
    max_length: Auto | Annotated[int, Field(ge=8)] = "auto"
    over_length: Literal["drop", "truncate", "fail"] = "drop"
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    early_stopping_patience: Annotated[int, Field(ge=0)] = 3
    """Validations without improvement before training stops; 0 never stops early."""


class Lora(StrictModel):
    r: Auto | Literal[1, 8, 16, 32, 64, 128, 256] = "auto"
    alpha: Auto | Annotated[int, Field(ge=1)] = "auto"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    quantization: Literal["nf4", "none"] = "nf4"


class Splits(StrictModel):
    """Shares of the dataset; what is left is trained on. A validation file replaces the validation share."""

    validation: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    test: Annotated[float, Field(ge=0, lt=0.5)] = 0.1


class Evaluation(StrictModel):
    max_examples: Annotated[int, Field(ge=1)] = 200
    few_shot: Annotated[int, Field(ge=0, le=20)] = 3
    max_tokens: Annotated[int, Field(ge=1)] = 256
    concurrency: Annotated[int, Field(ge=1, le=256)] = 16


class Gate(StrictModel):
    """The tuned model is promoted when the lower end of the interval of (tuned - base) is above `min_delta`."""

    metric: Auto | Literal["rouge_1", "rouge_2", "rouge_l", "exact_match", "accuracy", "macro_f1"] = "auto"
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    min_delta: float = 0.0
    require_better_than_few_shot: bool = False
    promote: Literal["if_better", "always", "never"] = "if_better"


class JobSpec(StrictModel):
    """Everything a user may say of a job. All of it has a default."""

    model: str | None = None
    """The base to tune; None: the default of the deployment."""
    method: Method | None = None
    """None: told by the rows (preference pairs are `dpo`, everything else is `supervised`)."""
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    alias: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    """The name behind which a promoted model answers; default: suffix, else the dataset's file name."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    hyperparameters: Hyperparameters = Hyperparameters()
    lora: Lora = Lora()
    splits: Splits = Splits()
    evaluation: Evaluation = Evaluation()
    gate: Gate = Gate()
    validation_file: DatasetPointer | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] = {}
    rerun: Annotated[int, Field(ge=0)] = 0
    """Raise it to run the same dataset with the same settings again."""


class Origin(FrozenModel):
    """How the job came to be, and its lineage."""

    kind: Literal["drop", "event", "api", "retrain"] = "drop"
    source: str = ""
    parent_job: str | None = None
    parent_version: str | None = None


# --- events -------------------------------------------------------------------------------------------------------


class Event(FrozenModel):
    """Base of all events; `topic` is also the CloudEvents type (`tunestream.{topic}.v1`)."""

    topic: ClassVar[str]
    sent_by: ClassVar[tuple[str, ...]]
    read_by: ClassVar[tuple[str, ...]]
    """Services; `anyone` is who is none of ours."""

    @classmethod
    def ce_type(cls) -> str:
        return f"tunestream.{cls.topic}.v1"


class DatasetUploaded(Event):
    """A dataset is there to be trained on. A stranger need only send `{"dataset": {"bucket", "key"}}`."""

    topic: ClassVar[str] = "dataset.uploaded"
    sent_by = ("anyone", "ingest")
    read_by = ("ingest", "validate", "api")
    job_id: str | None = None
    """Made by ingest; a stranger leaves it out."""
    dataset: DatasetPointer
    validation_file: DatasetPointer | None = None
    """Rows to validate on, instead of a share of the dataset."""
    spec: JobSpec | None = None
    origin: Origin | None = None


class Split(FrozenModel):
    """One side of the split: a JSONL object of validated rows. `tokens` are of the base's own tokenizer."""

    reference: Reference
    examples: int
    tokens: int


class DatasetValidated(Event):
    """The rows are fit to train on, counted and split."""

    topic: ClassVar[str] = "dataset.validated"
    sent_by = ("validate",)
    read_by = ("trainer", "api")
    job_id: str
    method: Method
    format: Literal["chat", "completion", "preference"]
    train: Split
    validation: Split | None = None
    test: Split | None = None
    report: Reference
    longest_tokens: int = 0
    max_length: int | None = None
    """Tokens a row may have; rows over it were dealt with by `hyperparameters.over_length`."""
    estimated_seconds: float | None = None


class Overfitting(FrozenModel):
    """The guide's verdict: validation loss against training loss, and its trend."""

    verdict: Literal["healthy", "overfitting", "underfitting", "unknown"]
    reason: str
    best_step: int | None = None


class CheckpointInfo(FrozenModel):
    step: int
    prefix: str
    train_loss: float | None = None
    valid_loss: float | None = None


class TrainingCompleted(Event):
    """There is an adapter; it is not measured yet."""

    topic: ClassVar[str] = "training.completed"
    sent_by = ("trainer",)
    read_by = ("evaluator", "api")
    job_id: str
    model: str
    base: str
    method: Method = "supervised"
    adapter: FolderReference
    rank: int
    steps: int
    epochs: float
    trained_tokens: int
    train_loss: float
    valid_loss: float | None = None
    overfitting: Overfitting
    hyperparameters: dict[str, Any] = {}
    checkpoints: tuple[CheckpointInfo, ...] = ()
    artifacts: dict[str, Reference] = {}
    """`curves.png`, `metrics.jsonl`, `results.csv`, `preview.txt`, `hyperparameters.json`."""
    test: Split | None = None
    train: Split | None = None
    seconds: float = 0.0


class Interval(FrozenModel):
    """A mean difference with its paired bootstrap confidence interval."""

    mean: float
    low: float
    high: float
    confidence: float


class EvalCompleted(Event):
    """The tuned model was compared with its base; `passed` decides whether the alias moves."""

    topic: ClassVar[str] = "eval.completed"
    sent_by = ("evaluator",)
    read_by = ("inference", "api")
    job_id: str
    model: str
    base: str
    examples: int
    metric: str
    scores: dict[str, dict[str, float]]
    """`{"base" | "few_shot" | "tuned": {metric: mean}}`."""
    delta: Interval
    passed: bool
    reasons: tuple[str, ...]
    report: Reference
    html: Reference


class ModelDeployed(Event):
    """An alias answers with another model now, from this moment on."""

    topic: ClassVar[str] = "model.deployed"
    sent_by = ("inference",)
    read_by = ("api", "anyone")
    job_id: str
    """The job that trained it."""
    model: str
    """The immutable id, `ft:…`."""
    alias: str
    """The name that answers with this model now."""
    previous: str | None = None
    """What it answered with before."""
    endpoint: str
    """`base_url` of an OpenAI client."""
    traffic: float = 1.0
    """Its share of the alias's requests."""


class JobProgress(Event):
    """State changes and training metrics. `data` holds numbers and short words, never user text."""

    topic: ClassVar[str] = "job.progress"
    sent_by = RUNNER_STAGES
    read_by = ("api", "anyone")
    job_id: str
    stage: StageName | str
    """A reader accepts a stage that it does not know."""
    state: ProgressState | str
    """A reader takes a state that it does not know as `running`."""
    message: str = ""
    step: int | None = None
    total_steps: int | None = None
    eta_seconds: float | None = None
    """Until the stage ends."""
    data: dict[str, Any] = {}


class JobFailed(Event):
    """The job ended without a model. Code `cancelled`: the user ended it."""

    topic: ClassVar[str] = "job.failed"
    sent_by = STAGE_NAMES
    read_by = ("api", "anyone")
    job_id: str
    stage: StageName | str
    """A reader accepts a stage that it does not know."""
    code: str
    message: str
    param: str | None = None
    """The field of the job that is to blame."""


class JobControl(Event):
    """What the user asked for while a job was under way."""

    topic: ClassVar[str] = "job.control"
    sent_by = ("api",)
    read_by = RUNNER_STAGES
    job_id: str
    action: Literal["cancel", "pause", "resume"]


class InferenceLogged(Event):
    """One sampled request. `request` and `response` are only there when content logging is switched on."""

    topic: ClassVar[str] = "inference.logged"
    sent_by = ("inference",)
    read_by = ("evaluator",)
    request_id: str
    job_id: str | None = None
    model: str
    alias: str | None = None
    route: str
    status: int
    latency_seconds: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    request: dict[str, Any] | None = None
    response: dict[str, Any] | None = None


class InferenceFeedback(Event):
    """What a user thought of an answer."""

    topic: ClassVar[str] = "inference.feedback"
    sent_by = ("inference",)
    read_by = ("evaluator",)
    request_id: str
    job_id: str | None = None
    model: str | None = None
    rating: Literal["up", "down"]
    comment: str | None = None


class ModelDegraded(Event):
    """A served model got worse: which alert fired, and its figures."""

    topic: ClassVar[str] = "model.degraded"
    sent_by = ("evaluator",)
    read_by = ("ingest", "anyone")
    job_id: str | None = None
    model: str
    alert: str
    figures: dict[str, float] = {}


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
)
BY_TOPIC: dict[str, type[Event]] = {event.topic: event for event in EVENTS}


# --- documents of the ledger --------------------------------------------------------------------------------------

AttemptNumber = Annotated[int, Field(validation_alias=AliasChoices("attempt", "epoch"))]
"""Which attempt at a stage, from 1. Older documents call it `epoch`."""


class Job(FrozenModel):
    """`jobs/{job_id}/job.json`, created once by ingest: what was asked for, by whom, about which bytes."""

    job_id: str
    created_at: float
    dataset: Reference
    validation_file: Reference | None = None
    spec: JobSpec
    base: str
    """The base model's id, resolved when the job was made, so that a later change of the default changes nothing."""
    model: str
    """The id that the trained model will have."""
    alias: str
    origin: Origin
    traceparent: str


class EventRecord(FrozenModel):
    """An event at rest. `id` is its CloudEvents id."""

    topic: str
    type: str
    id: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: Event, ce_id: str) -> EventRecord:
        data = event.model_dump(mode="json", exclude_none=True)
        return cls(topic=event.topic, type=event.ce_type(), id=ce_id, data=data)

    def event(self) -> Event:
        return BY_TOPIC[self.topic].model_validate(self.data)


class Claim(FrozenModel):
    """`jobs/{job_id}/{stage}/claim.json`: who works on the stage, and until when others must keep away.

    `attempt` only grows. `bugs` and `failures` count how earlier attempts ended, so that a limit
    holds across processes. `not_before`: nobody may claim earlier (back-off).
    """

    owner: str
    attempt: AttemptNumber
    expires: float
    bugs: int = 0
    failures: int = 0
    not_before: float = 0.0


class StageResult(FrozenModel):
    """`jobs/{job_id}/{stage}/result.json`: the commit point of a stage, and the outbox row of its event."""

    job_id: str
    stage: StageName
    attempt: AttemptNumber
    owner: str
    outcome: StageOutcome
    event: EventRecord
    finished_at: float


class Deployed(FrozenModel):
    model: str
    job_id: str
    at: float


class Deployment(FrozenModel):
    """`deployments/{alias}.json`, changed only by compare-and-swap. `history` is newest first."""

    alias: str
    current: Deployed
    previous: Deployed | None = None
    history: tuple[Deployed, ...] = ()
