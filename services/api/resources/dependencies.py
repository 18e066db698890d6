"""The objects that the routes of all resources need."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from services.api.database import ProjectionDatabase
from services.api.domain.state import JobState, Unreadable
from services.api.projection import Projection
from services.api.resources.jobs.domain import job_view, unreadable_view
from services.api.webhooks.receivers import Receivers
from shared.http.errors import ApiError
from shared.ids import is_job_id
from shared.settings import EmbeddingsSettings, ModelSettings
from shared.stages.publisher import Publisher
from shared.store.objects import ObjectStore

QUOTA_SECONDS = 30
"""When a client that has too many jobs under way may try again."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dependencies:
    """One instance for all routes. `url` is the address of this service for others, `inference_url` that of the
    endpoint with the models."""

    database: ProjectionDatabase
    projection: Projection
    objects: ObjectStore
    bus: Publisher
    url: str
    model: ModelSettings = field(default_factory=ModelSettings)
    """What may be fine-tuned."""
    complained: set[str] = field(default_factory=set)
    """Jobs that were logged because they cannot be shown."""
    largest_file: int = 8 * 2**30
    """In bytes."""
    inference_url: str = "http://127.0.0.1:8000"
    """Where the endpoint is, for graders that ask a model."""
    embeddings: EmbeddingsSettings = field(default_factory=EmbeddingsSettings)
    """For graders that compare embeddings."""
    tracked: frozenset[str] = frozenset()
    """The integrations of jobs that are served."""
    receivers: Receivers = field(default_factory=Receivers)
    webhooks_wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when an endpoint of webhooks is made."""
    sweeps_wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a sweep is made, or is to end."""
    largest_rank: int = 64
    """Of an adapter that is served."""

    async def job(self, job_id: str, project: str) -> JobState:
        """The job of that id.

        Raises:
            ApiError: 404, there is no such job in the project.
        """
        state = await self.projection.find(job_id, project) if is_job_id(job_id) else None
        if state is None:
            raise ApiError(
                404, f"There is no job {job_id!r}; GET /jobs lists them.", param="job_id", code="job_not_found"
            )
        return state

    async def current_job(self, job_id: str, project: str) -> JobState:
        """The job of that id as the ledger has it now, because the topics may lag behind.

        Raises:
            ApiError: 404, there is no such job in the project.
        """
        await self.job(job_id, project)
        return await self.projection.refresh(job_id) or await self.job(job_id, project)

    async def admit_job(self, project: str, most: int | None) -> None:
        """Make sure that a project may have one more job. `most`: that it may have under way at a time; None: any
        number.

        Raises:
            ApiError: 429, it has as many as it may have.
        """
        if most is None or await self.database.open_jobs(project) < most:
            return
        message = f"This key allows {most} jobs under way at a time; wait for one to end, or cancel one."
        raise ApiError(429, message, code="exceeded_quota", headers={"retry-after": str(QUOTA_SECONDS)})

    def notes(self) -> list[dict[str, Any]]:
        """What is away just now, as JSON."""
        return [note.view() for note in self.projection.notes()]

    def view(self, state: JobState | Unreadable) -> dict[str, Any]:
        """The JSON object of a job. One that cannot be shown is shown as such: it must not hide the others."""
        if isinstance(state, Unreadable):
            self.projection.mend(state.job_id)
            return unreadable_view(state)
        base = f"{self.url.rstrip('/')}/jobs/{state.job_id}/"
        try:
            return job_view(state, lambda path: base + path, now=self.objects.now(), notes=self.notes())
        except Exception:
            if state.job_id not in self.complained:
                self.complained.add(state.job_id)
                log.exception("a job cannot be shown", extra={"job_id": state.job_id})
            return unreadable_view(Unreadable(state.job_id, state.created_at, state.status))
