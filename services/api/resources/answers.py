"""The JSON objects that the routes answer, as the OpenAPI document shows them. The views of the resources make them; a
test holds both together."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field

from services.api.domain.state import Status
from shared.http.openapi import Answer

Item = TypeVar("Item")
Time = Annotated[int, Field(description="In whole seconds since the epoch.")]


class Page(Answer, Generic[Item]):
    object: Literal["list"]
    data: list[Item]
    has_more: bool
    """Whether there is another page, which `after=<last_id>` gives."""
    first_id: str | None
    last_id: str | None


class Deleted(Answer):
    """What was deleted, or of a key or a permission: revoked."""

    id: str
    object: str
    deleted: Literal[True]


class File(Answer):
    """A stored file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: Time
    expires_at: Time | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: str | None


class FileList(Page[File]):
    """A page of files."""


class Upload(Answer):
    """A file that comes in parts."""

    id: str
    object: Literal["upload"]
    bytes: int
    created_at: Time
    expires_at: Time
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: File | None
    """What was made of the parts."""


class UploadPart(Answer):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"]
    created_at: Time
    upload_id: str


class JobError(Answer):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class FineTuningJob(Answer):
    """A job as OpenAI's API has it, and beside that `alias`, `evaluation`, `deployment`, `waiting_for`, `trace_id`."""

    id: str
    object: Literal["fine_tuning.job"]
    created_at: Time
    finished_at: Time | None
    estimated_finish: Time | None
    status: Status
    model: str
    fine_tuned_model: str | None
    organization_id: str
    training_file: str
    """The id of a file; of a dataset that was dropped, its place (`s3://…`)."""
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    hyperparameters: dict[str, Any]
    method: dict[str, Any] = Field({})
    seed: int
    integrations: list[Any] = Field([])
    metadata: dict[str, str]
    error: JobError | None
    user_provided_suffix: str | None = None
    alias: str | None = None
    """What the model is called if it is better than its base."""
    evaluation: dict[str, Any] | None = None
    deployment: dict[str, Any] | None = None
    waiting_for: str | None = None
    """What holds the job up, in one line."""
    trace_id: str | None = None


class FineTuningJobList(Page[FineTuningJob]):
    """A page of jobs."""


class HistoryEntry(Answer):
    id: str
    object: str
    created_at: Time
    level: Literal["info", "warn", "error"]
    type: Literal["message", "metrics"]
    message: str
    data: dict[str, Any] | None


class FineTuningEvent(HistoryEntry):
    """An entry of a job's history."""

    object: Literal["fine_tuning.job.event"]


class FineTuningEventList(Page[FineTuningEvent]):
    """A page of a job's history."""


class Checkpoint(Answer):
    """The adapter at the end of an epoch. `fine_tuned_model_checkpoint` is a model that answers."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: Time
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, float | None]


class CheckpointList(Page[Checkpoint]):
    """A page of checkpoints."""


class Permission(Answer):
    """Another project may use the model."""

    id: str
    object: Literal["checkpoint.permission"]
    created_at: Time
    project_id: str


class PermissionList(Page[Permission]):
    """A page of permissions."""


class GraderFound(Answer):
    """A grader that can be used, as it was sent."""

    grader: dict[str, Any]


class GraderRun(Answer):
    """The score of one sample. `metadata.errors` tells what is wrong with the sample."""

    reward: float
    sub_rewards: dict[str, float]
    model_grader_token_usage_per_model: dict[str, dict[str, int]]
    metadata: dict[str, Any]


class WebhookEndpoint(Answer):
    """Where webhooks are sent."""

    id: str
    object: Literal["webhook_endpoint"]
    created_at: Time
    updated_at: Time
    event_types: list[str]
    name: str
    url: str
    signing_secret_hint: str


class WebhookEndpointSecret(WebhookEndpoint):
    """The same with its secret, which is shown only once."""

    signing_secret: str


class WebhookEndpointList(Page[WebhookEndpoint]):
    """A page of webhook endpoints."""


class WebhookEventTypes(Answer):
    """The types of events that are sent."""

    object: Literal["list"]
    data: list[str]


class WebhookTest(Answer):
    """How the endpoint answered a sample."""

    object: Literal["webhook_endpoint.test"]
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: bool


class Limits(Answer):
    """Limits of a key; null: none."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_open_jobs: int | None


class Key(Answer):
    """An API key, without its secret."""

    id: str
    object: Literal["api_key"]
    name: str
    project: str
    rights: list[str]
    limits: Limits
    created_at: Time
    revoked_at: Time | None


class NewKey(Key):
    """The same with its secret, which is shown only once."""

    secret: str


class KeyList(Page[Key]):
    """A page of API keys."""


class Note(Answer):
    """Something is away just now, so what is shown may be old."""

    code: str
    message: str
    seconds: float | None
    """For how long."""


class Job(Answer):
    """A job with its stages. Of one that cannot be read only the first fields are there."""

    id: str
    object: Literal["job"]
    created_at: Time
    finished_at: Time | None
    status: Status
    model: str | None
    fine_tuned_model: str | None
    error: JobError | None
    stages: dict[str, dict[str, Any]]
    notes: list[Note]
    alias: str | None = None
    suffix: str | None = None
    method: str | None = None
    seed: int | None = None
    dataset: dict[str, Any] | None = None
    validation_file: dict[str, Any] | None = None
    origin: dict[str, Any] | None = None
    metadata: dict[str, str] = Field({})
    waiting_for: str | None = None
    """What holds the job up, in one line."""
    validation: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    deployment: dict[str, Any] | None = None
    files: list[str] = Field([])
    """The names of its artifacts."""
    trace_id: str | None = None
    as_of: float | None = None
    """When this was so, in seconds since the epoch by the store's clock."""


class JobList(Page[Job]):
    """A page of jobs."""

    notes: list[Note]


class JobEvent(HistoryEntry):
    """An entry of a job's history."""

    object: Literal["job.event"]


class JobEventList(Page[JobEvent]):
    """A page of a job's history."""
