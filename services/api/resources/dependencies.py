"""The objects that the routes of all resources need."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.api.database import ProjectionDatabase
from services.api.domain.state import JobState
from services.api.projection import Projection
from services.api.resources.jobs.domain import job_view
from shared.http.errors import ApiError
from shared.stages.publisher import Publisher
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Dependencies:
    """One instance for all routes. `url` is the address of this service for others."""

    database: ProjectionDatabase
    projection: Projection
    objects: ObjectStore
    bus: Publisher
    clock: Callable[[], float]
    url: str

    async def job(self, job_id: str) -> JobState:
        """The job of that id.

        Raises:
            ApiError: 404, there is no such job.
        """
        state = await self.projection.look_up(job_id) if _JOB_ID.fullmatch(job_id) else None
        if state is None:
            raise ApiError(
                404, f"There is no job {job_id!r}; GET /jobs lists them.", param="job_id", code="job_not_found"
            )
        return state

    def view(self, state: JobState) -> dict[str, Any]:
        """The job as JSON. One that cannot be shown whole is shown without details, because it must not hide the
        others of a list."""
        base = f"{self.url.rstrip('/')}/jobs/{state.job_id}/"
        try:
            return job_view(state, lambda path: base + path)
        except Exception:
            log.exception("a job cannot be shown whole", extra={"job_id": state.job_id})
            return job_view(JobState(job_id=state.job_id), lambda path: base + path)
