"""/jobs/{id}/events: the history of a job, its messages and its metrics."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from services.api.resources.answers import JobEventList
from services.api.resources.dependencies import Dependencies
from services.api.resources.events import store
from services.api.resources.events.domain import event_view
from services.api.resources.lists import listing
from shared.access.principal import principal_of
from shared.http.errors import ApiError
from shared.http.responses import JsonResponse


def router(dependencies: Dependencies) -> APIRouter:
    routes = APIRouter(tags=["events"])

    @routes.get("/jobs/{job_id}/events", response_model=JobEventList)
    async def list_events(
        job_id: str,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        """Newest first, or oldest first; `after` is the id of the last event of the page before.

        A client that polls with `order=asc` and the last id it has seen misses nothing: late events are put last.
        """
        await dependencies.job(job_id, principal_of(request).project)
        page = await store.list_messages(dependencies.database, job_id, limit=limit, after=after, order=order)
        if page is None:
            message = f"Job {job_id} has no event {after!r} to continue after."
            raise ApiError(404, message, param="after", code="event_not_found")
        return JsonResponse(listing([event_view(message) for message in page.rows], page.has_more))

    return routes
