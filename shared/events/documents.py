"""The documents in the ledger: the manifest of a job, the claim and the result of a stage, the deployment of an alias,
API keys, and what is in quarantine."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, Field, model_validator

from shared.events.event import RUNNER_STAGES, Event, StageName, StageOutcome
from shared.events.events import BY_TOPIC
from shared.events.limits import (
    DEFAULT_PROJECT,
    FileId,
    Id,
    JsonObject,
    KeyId,
    Limit,
    Name,
    ProjectId,
    Sha256,
    Text,
)
from shared.events.models import FrozenModel
from shared.events.references import FolderReference, Reference
from shared.events.spec import JobSpec, Origin

AttemptNumber = Annotated[int, Field(validation_alias=AliasChoices("attempt", "epoch"))]
"""Which attempt at a stage, from 1. Older documents call it `epoch`."""


class Prepared(FrozenModel):
    """What ingest made of files that were not in a training format: rows of chats, preference pairs or completions."""

    dataset: Reference | None = None
    """None: the job's dataset was in a training format."""
    validation_file: Reference | None = None
    report: Reference
    """What was read how, and what was left out and why."""


class Job(FrozenModel):
    """`jobs/{job_id}/job.json`, created once by ingest: the settings of the job, its origin and its dataset."""

    job_id: str
    created_at: float
    dataset: Reference
    validation_file: Reference | None = None
    spec: JobSpec
    base: str
    """The base model's id, resolved when the job was made, so that a later change of the default does not change the
    job."""
    start_from: FolderReference | None = None
    """The adapter of the tuned model that the job starts from; None: a fresh adapter."""
    model: str
    """The id that the trained model will have."""
    alias: str
    origin: Origin
    traceparent: str
    project: ProjectId = DEFAULT_PROJECT
    """Only keys of this project see the job, its model and its alias."""
    notes: tuple[Text, ...] = ()
    """What its user should know of how the request was understood. The history of the job begins with them."""
    prepared: Prepared | None = None
    """None: the files are read as they are."""

    @property
    def rows(self) -> Reference:
        """The rows to train on: what ingest made of the dataset, else the dataset itself."""
        return (self.prepared and self.prepared.dataset) or self.dataset

    @property
    def validation_rows(self) -> Reference | None:
        """As `rows`, of the validation file."""
        return (self.prepared and self.prepared.validation_file) or self.validation_file

    @property
    def adopts(self) -> tuple[StageName, ...]:
        """The stages whose results a retry takes over from its parent, in order. Ingest is none of them: it makes the
        job."""
        if self.origin.parent_job is None or self.origin.from_stage not in RUNNER_STAGES:
            return ()
        return RUNNER_STAGES[: RUNNER_STAGES.index(self.origin.from_stage)]

    @property
    def is_trial(self) -> bool:
        """Whether the job ends when its model is trained: it is a trial of a sweep, and only the best one is evaluated.
        A retry from a later stage than the training is no trial any more: somebody wants that model evaluated."""
        return self.origin.sweep is not None and self.origin.from_stage not in ("evaluator", "inference")


class Retry(FrozenModel):
    """`ingest/retries/{job_id}.json`, created once by the api: a user wants a job to be tried again. Ingest makes the
    job `job_id` of it."""

    parent_job: str
    from_stage: StageName
    rerun: int
    """The counter of the new job, which is higher than the parent's."""
    at: float
    """When it was asked for, in seconds since the epoch."""
    traceparent: str
    """Of the request. The new job belongs to its trace."""


class Asked(FrozenModel):
    """`ingest/asked/{job_id}.json`, created once by the api: a client asked for a job. Ingest makes the job of it, with
    this manifest."""

    job: Job
    key_id: Id
    """The API key that asked."""
    request: Id
    """The SHA-256 of the body, in hex."""
    repeated: bool = False
    """It was the client's second try, or a later one."""


class StoredFile(FrozenModel):
    """`files/{file_id}/meta.json`, created once when the content is complete: a file of the Files API."""

    file_id: FileId
    project: ProjectId = DEFAULT_PROJECT
    filename: Name
    purpose: Id
    created_at: float
    """In seconds since the epoch, by the clock of the object store; so is `expires_at`."""
    content: Reference
    expires_at: float | None = None


class KeyLimits(FrozenModel):
    """What an API key may use. None: there is no limit."""

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    """Of generations, those of the prompt and those of the answer together."""
    max_open_jobs: Limit | None = None
    """Jobs of its project that have not ended, when it asks for one more."""


class ApiKey(FrozenModel):
    """`keys/{id}.json`, created once by the api. The secret is kept nowhere. A key is never deleted: revoking it sets
    `revoked_at`, by compare-and-swap."""

    id: KeyId
    name: Text
    sha256: Sha256
    """Of the secret."""
    project: ProjectId = DEFAULT_PROJECT
    rights: tuple[Id, ...]
    """A right that a reader does not know gives nothing."""
    limits: KeyLimits = KeyLimits()
    created_at: float
    """In seconds since the epoch, by the clock of the object store; so is `revoked_at`."""
    revoked_at: float | None = None


class EventRecord(FrozenModel):
    """An event as a document stores it. `id` is its CloudEvents id."""

    topic: str
    type: str
    id: str
    data: JsonObject

    @classmethod
    def of(cls, event: Event, ce_id: str) -> EventRecord:
        data = event.model_dump(mode="json", exclude_none=True)
        return cls(topic=event.topic, type=event.ce_type(), id=ce_id, data=data)

    def event(self) -> Event:
        return BY_TOPIC[self.topic].model_validate(self.data)


class Claim(FrozenModel):
    """`jobs/{job_id}/{stage}/claim.json`: who works on the stage, and until when nobody else may take it.

    Times are in seconds since the epoch, by the clock of the object store. `attempt` only grows. `bugs`, `failures` and
    `deaths` count how earlier attempts ended, so that a limit holds across processes.
    """

    owner: str
    attempt: AttemptNumber
    expires: float
    """When it runs out, or when it was given back."""
    given_back: bool = False
    """The owner gave the claim back, so anybody may take it at once."""
    bugs: int = 0
    """Attempts that ended in an unexpected exception."""
    failures: int = 0
    """Attempts in a row that ended because something outside was unavailable, or a setting was wrong."""
    deaths: int = 0
    """Attempts whose owner was gone without giving the claim back."""
    not_before: float = 0.0
    """Nobody may claim before (back-off)."""
    waiting_for: str | None = None
    """What the job waits for, in one line; None: it is not waiting."""
    waiting_since: float | None = None
    paused: bool = False
    """The owner gave the claim back because the user has paused the job."""

    @model_validator(mode="before")
    @classmethod
    def _of_older_versions(cls, data: Any) -> Any:
        """They wrote that a claim was given back as `expires` 0."""
        if isinstance(data, dict) and data.get("expires") == 0:
            return {**data, "given_back": True}
        return data


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
    """A model that an alias named from `at` on (seconds since the epoch), and the job that trained it."""

    model: str
    job_id: str
    at: float
    rolled_back: bool = False
    """The alias came back to it by a rollback."""


class Deployment(FrozenModel):
    """`deployments/{alias}.json`: the model that the alias names. It is changed only by compare-and-swap. `history` is
    newest first. The aliases of a project other than the default one are in a folder of its own."""

    alias: str
    project: ProjectId = DEFAULT_PROJECT
    current: Deployed
    previous: Deployed | None = None
    history: tuple[Deployed, ...] = ()


class Tombstone(FrozenModel):
    """`deleted/{kind}/{name}.json`: nobody reads what is below `prefix` any more, and the janitor deletes it."""

    prefix: str
    """Below it, in Tunestream's bucket, lies what is to be deleted. It ends in a slash."""
    reason: str
    """Why, in one line."""
    at: float


class CheckpointPermission(FrozenModel):
    """`permissions/{name of the model}/{permission_id}.json`: another project may use a tuned model, or a checkpoint of
    one. It is changed once, by compare-and-swap, when it is revoked."""

    permission_id: Id
    model: Name
    """The exact id of the model or checkpoint."""
    owner: ProjectId
    """The project whose model it is."""
    project_id: ProjectId
    """The project that may use it."""
    created_at: float
    """In seconds since the epoch, by the clock of the object store; so is `revoked_at`."""
    revoked_at: float | None = None
    """Since when it counts no more."""


class Quarantined(FrozenModel):
    """`quarantine/{kind}/{id}.json`: something that cannot become a job, or that no service can read."""

    kind: str
    """What it is: `drop`, `event` or `manifest`; a reader accepts a kind that it does not know."""
    place: str
    """Where it is, such as `s3://datasets/support.jsonl`, or the topic that it came from."""
    field: str | None = None
    """The field that is wrong."""
    reason: str
    """What is wrong, in one line."""
    remedy: str = ""
    """What to do, in one line."""
    final: bool = True
    """Nobody looks at it again until it changes. Otherwise it is tried again, less and less often."""
    at: float
    """Since when, in seconds since the epoch, by the clock of the object store."""
    solved_at: float | None = None
    """When it, or what came later to the same place, became a job after all."""
