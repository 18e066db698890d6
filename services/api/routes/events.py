"""/jobs/{id}/events: the history of a job, its messages and its metrics."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from services.api.domain.messages import Message
from services.api.routes.dependencies import Dependencies
from services.api.routes.lists import listing
from shared.http_errors import ApiError
from shared.http_responses import JsonResponse


def router(dependencies: Dependencies) -> APIRouter:
    routes = APIRouter(tags=["events"])

    @routes.get("/jobs/{job_id}/events")
    async def list_events(
        job_id: str,
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        """Newest first, or oldest first; `after` is the id of the last event of the page before.

        A client that polls with `order=asc` and the last id it has seen misses nothing: late events are put last.
        """
        await dependencies.job(job_id)
        page = await dependencies.database.messages(job_id, limit=limit, after=after, order=order)
        if page is None:
            message = f"Job {job_id} has no event {after!r} to continue after."
            raise ApiError(404, message, param="after", code="event_not_found")
        return JsonResponse(listing([_view(message) for message in page.rows], page.has_more))

    return routes


def _view(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "object": "job.event",
        "created_at": int(message.at),
        "level": message.level,
        "type": message.type,
        "message": message.message,
        "data": message.data,
    }
