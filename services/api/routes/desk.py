"""What the routes work with, and what they share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.api.domain.state import JobState
from services.api.domain.view import job_view
from services.api.envelope import ApiError
from services.api.projection import Projection
from services.api.store import Store
from shared.objects import ObjectStore
from shared.publisher import Publisher

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Desk:
    """`url` is where others reach this service."""

    store: Store
    projection: Projection
    objects: ObjectStore
    bus: Publisher
    clock: Callable[[], float]
    url: str

    async def job(self, job_id: str) -> JobState:
        """Raises `ApiError` 404 when there is no such job."""
        state = await self.projection.look_up(job_id) if _JOB_ID.fullmatch(job_id) else None
        if state is None:
            raise ApiError(
                404, f"There is no job {job_id!r}; GET /jobs lists them.", param="job_id", code="job_not_found"
            )
        return state

    def view(self, state: JobState) -> dict[str, Any]:
        base = f"{self.url.rstrip('/')}/jobs/{state.job_id}/"
        return job_view(state, lambda path: base + path)
