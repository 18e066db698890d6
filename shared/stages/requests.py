"""The request for a stage of a job: its `request.json`, or else the result of the stage before it."""

from __future__ import annotations

import contextlib
import json
from enum import Enum, auto
from typing import Any

from pydantic import ValidationError

from shared import ids
from shared.errors import AlreadyExists
from shared.events import Job
from shared.stages import outbox
from shared.stages.ledger import Ledger, stage_prefix
from shared.stages.stage import STAGES, Stage

Request = dict[str, Any]
"""The data of the event that asked for the stage."""


class Missing(Enum):
    """Why there is no request."""

    NOT_YET = auto()
    """The stage before has no result yet."""
    NEVER = auto()
    """An earlier stage ended the job."""


class Requests:
    """The requests of one stage. Every method raises `StoreUnavailable` when the ledger is away."""

    def __init__(self, ledger: Ledger, stage: Stage) -> None:
        self._ledger = ledger
        self._stage = stage

    async def create(self, job_id: str, request: Request) -> None:
        """Store the request. If there is one already, it stays as it is."""
        with contextlib.suppress(AlreadyExists):
            await self._ledger.create(self._key(job_id), ids.canonical(request))

    async def find(self, job_id: str, *, created: bool) -> Request | Missing:
        """The request of a job; `created` says whether its `request.json` was listed.

        If the event was lost (with Kafka's disk, for example), the result of the stage before still holds it, and
        becomes the request.
        """
        if created:
            found = await self._ledger.get(self._key(job_id))
            assert found is not None, "requests are never deleted"
            asked: Request = json.loads(found[0])
            return asked
        result = await outbox.read(self._ledger, job_id, self._stage.upstream)
        if result is None:
            return Missing.NEVER if await self._ended_before(job_id) else Missing.NOT_YET
        if result.outcome != "completed":
            return Missing.NEVER
        request = result.event.data
        await self.create(job_id, request)
        return request

    async def _ended_before(self, job_id: str) -> bool:
        """Whether an earlier stage ended the job. Without this question the runner would look at such jobs forever, and
        there may be many."""
        stage = STAGES.get(self._stage.upstream)
        while stage is not None:
            if result := await outbox.read(self._ledger, job_id, stage.upstream):
                return result.outcome != "completed"
            stage = STAGES.get(stage.upstream)
        return False

    def _key(self, job_id: str) -> str:
        return stage_prefix(job_id, self._stage.name) + "request.json"


def read_job(manifest: bytes) -> Job | ValidationError:
    """The manifest of a job, or why it cannot be read."""
    try:
        return Job.model_validate_json(manifest)
    except ValidationError as error:
        return error
