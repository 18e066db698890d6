"""The keys of the ledger, and the few operations that correctness depends on. See docs/architecture.md, "The
ledger"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.events.limits import DEFAULT_PROJECT

JOBS = "jobs/"
QUARANTINE = "quarantine/"
RETRIES = "ingest/retries/"
PENDING = "pending/"
DELETED = "deleted/"
ASKED = "ingest/asked/"
FILES = "files/"
UPLOADS = "uploads/"
KEYS = "keys/"
PERMISSIONS = "permissions/"
DEPLOYMENTS = "deployments/"


@dataclass(frozen=True)
class Entry:
    """One object of a listing. `size` in bytes, `modified` in seconds since the epoch."""

    key: str
    etag: str
    size: int
    modified: float


class Ledger(Protocol):
    """Small documents with create-once and compare-and-swap.

    Every method ends within seconds. It raises `StoreUnavailable` when the store gives no answer; a write that raised
    it may have taken effect nevertheless. It raises `ConfigError` or `StoreRefused` when the store refuses it.
    """

    def now(self) -> float:
        """Seconds since the epoch by the store's own clock, as of its last answer and the time since. All processes
        agree on it to within a second or two, whatever their own clocks say."""
        ...

    async def get(self, key: str) -> tuple[bytes, str] | None:
        """The bytes and their ETag; None if there is no such object."""
        ...

    async def create(self, key: str, data: bytes) -> str:
        """Write if there is no such object. Returns the new ETag; raises `AlreadyExists`."""
        ...

    async def replace(self, key: str, data: bytes, etag: str) -> str:
        """Write if the object still has the ETag `etag`. Returns the new ETag; raises `Conflict`."""
        ...

    async def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        ...

    async def list(self, prefix: str) -> Sequence[Entry]:
        """Every object whose key starts with `prefix`."""
        ...

    async def folders(self, prefix: str) -> Sequence[str]:
        """Names of the folders directly in `prefix`, without their slash. `prefix` may end within a name:
        `jobs/ftjob-ab` finds every job whose id begins with `ftjob-ab`."""
        ...


def job_key(job_id: str) -> str:
    return f"{JOBS}{job_id}/job.json"


def stage_prefix(job_id: str, stage: str) -> str:
    return f"{JOBS}{job_id}/{stage}/"


def claim_key(job_id: str, stage: str) -> str:
    return stage_prefix(job_id, stage) + "claim.json"


def result_key(job_id: str, stage: str) -> str:
    return stage_prefix(job_id, stage) + "result.json"


def decision_key(job_id: str, stage: str) -> str:
    """Where it is said whether a stage goes on to its end, or ends as cancelled."""
    return stage_prefix(job_id, stage) + "decision.json"


def published_key(job_id: str, stage: str) -> str:
    return stage_prefix(job_id, stage) + "published.json"


def pending_prefix(stage: str) -> str:
    return f"{PENDING}{stage}/"


def pending_key(stage: str, asked_at: float, job_id: str) -> str:
    """The entry of a job in the index of open work, so that a listing is in the order in which the stage was asked.
    `asked_at`: seconds since the epoch by the ledger's clock."""
    return f"{pending_prefix(stage)}{asked_at:014.3f}-{job_id}"


def pending_entry(key: str) -> tuple[str, float, str] | None:
    """Stage, time and job of an entry, as `pending_key` has them; None: it is none."""
    stage, _, name = key.removeprefix(PENDING).partition("/")
    time, _, job_id = name.partition("-")
    try:
        return (stage, float(time), job_id) if stage and job_id else None
    except ValueError:
        return None


def tombstone_key(kind: str, name: str) -> str:
    """Where it is said that something is to be deleted. `kind`: `checkpoints`, for example."""
    return f"{DELETED}{kind}/{name}.json"


def attempt_prefix(job_id: str, stage: str, attempt: int) -> str:
    return f"{JOBS}{job_id}/{stage}/attempt-{attempt}/"


def control_prefix(job_id: str) -> str:
    return f"{JOBS}{job_id}/control/"


def deployment_key(alias: str, project: str = DEFAULT_PROJECT) -> str:
    folder = "" if project == DEFAULT_PROJECT else f"{project}/"
    return f"{DEPLOYMENTS}{folder}{alias}.json"


def base_key(digest: str) -> str:
    return f"bases/{digest}.json"


def gpu_prefix(name: str) -> str:
    return f"gpu/{name}/"


def retry_key(job_id: str) -> str:
    """Where the api asks for the job `job_id`, a retry of another one."""
    return f"{RETRIES}{job_id}.json"


def asked_key(job_id: str) -> str:
    """Where the api asks for a new job."""
    return f"{ASKED}{job_id}.json"


def file_prefix(file_id: str) -> str:
    return f"{FILES}{file_id}/"


def file_meta_key(file_id: str) -> str:
    return file_prefix(file_id) + "meta.json"


def file_content_key(file_id: str) -> str:
    return file_prefix(file_id) + "content"


def file_of_content(key: str) -> str | None:
    """The file of which `key` is the content; None: it is no such key."""
    file_id = key.removeprefix(FILES).removesuffix("/content")
    return file_id if key == file_content_key(file_id) and "/" not in file_id else None


def upload_prefix(upload_id: str) -> str:
    return f"{UPLOADS}{upload_id}/"


def api_key_key(key_id: str) -> str:
    """Where an API key is described. The key itself is kept nowhere."""
    return f"{KEYS}{key_id}.json"
