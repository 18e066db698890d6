"""/v1/fine_tuning/jobs: create, list, retrieve, cancel, pause, resume; events and checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from services.api.domain.state import JobState, Unreadable
from services.api.resources.answers import CheckpointList, FineTuningEventList, FineTuningJob, FineTuningJobList
from services.api.resources.dependencies import Dependencies
from services.api.resources.events.store import list_messages
from services.api.resources.fine_tuning import store
from services.api.resources.fine_tuning.asking import Asking
from services.api.resources.fine_tuning.domain.history import checkpoint_steps, checkpoint_views, event_view
from services.api.resources.fine_tuning.domain.job import job_view, unreadable_view
from services.api.resources.fine_tuning.domain.request import CreateJob
from services.api.resources.jobs.store import NO_FILTER, cancel, list_jobs, pause, resume
from services.api.resources.lists import behind, listing
from shared.access.keyring import limits_of
from shared.access.principal import principal_of
from shared.http.errors import ApiError
from shared.http.json_route import JsonRoute
from shared.http.repeated import is_repeated
from shared.http.responses import JsonResponse

Limit = Annotated[int, Query(ge=1, le=100)]
EventLimit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str | None, Query(max_length=256)]
METADATA = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "description": "`metadata[key]=value`: jobs that have this pair.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}
_FILTER = re.compile(r"metadata\[(?P<key>.*)\]", re.DOTALL)


def router(dependencies: Dependencies) -> APIRouter:
    routes = APIRouter(prefix="/v1/fine_tuning", tags=["fine_tuning"], route_class=JsonRoute)
    asking = Asking(dependencies.objects)

    def view(state: JobState | Unreadable) -> dict[str, Any]:
        native, organization = dependencies.view(state), dependencies.model.organization
        if isinstance(state, Unreadable):
            return unreadable_view(state, organization=organization)
        return job_view(state, native, organization=organization, now=dependencies.objects.now())

    @routes.post("/jobs", response_model=FineTuningJob, responses={404: {}})
    async def create_fine_tuning_job(body: CreateJob, request: Request) -> Response:
        """Make a new job. It is durable when this answers."""
        job = await store.create_job(
            dependencies,
            asking,
            body,
            principal_of(request),
            most=limits_of(request).max_open_jobs,
            sent=await request.body(),
            repeated=is_repeated(request),
            traceparent=request.state.traceparent,
        )
        return JsonResponse(view(job))

    @routes.get("/jobs", response_model=FineTuningJobList, openapi_extra={"parameters": [METADATA]})
    async def list_fine_tuning_jobs(request: Request, limit: Limit = 20, after: After = None) -> Response:
        """All jobs of the project, newest first, however they came to be. `metadata[key]=value` shows those that have
        this pair, `metadata=null` those without any."""
        project = principal_of(request).project
        page = await list_jobs(dependencies.database, project, limit=limit, after=after, metadata=_metadata(request))
        if page is None:
            raise ApiError(404, f"There is no job {after!r} to continue after.", param="after", code="job_not_found")
        return JsonResponse(listing([view(state) for state in page.rows], page.has_more))

    @routes.get("/jobs/{job_id}", response_model=FineTuningJob)
    async def retrieve_fine_tuning_job(job_id: str, request: Request) -> Response:
        """The job as it is now. Poll it until its status is `succeeded`, `failed` or `cancelled`."""
        return JsonResponse(view(await dependencies.job(job_id, principal_of(request).project)))

    @routes.post("/jobs/{job_id}/cancel", response_model=FineTuningJob)
    async def cancel_fine_tuning_job(job_id: str, request: Request) -> Response:
        """Ask for the job to end, and answer at once. The job is `cancelled` when its owner has stopped working."""
        state = await dependencies.current_job(job_id, principal_of(request).project)
        await cancel(state, dependencies.objects, dependencies.bus, repeated=is_repeated(request))
        return JsonResponse(view(state))

    @routes.post("/jobs/{job_id}/pause", response_model=FineTuningJob)
    async def pause_fine_tuning_job(job_id: str, request: Request) -> Response:
        """Let the job rest until it is resumed. A training writes a checkpoint and gives back the GPU."""
        state = await dependencies.current_job(job_id, principal_of(request).project)
        return JsonResponse(view(await pause(state, dependencies.projection, dependencies.objects, dependencies.bus)))

    @routes.post("/jobs/{job_id}/resume", response_model=FineTuningJob)
    async def resume_fine_tuning_job(job_id: str, request: Request) -> Response:
        """Let a paused job go on from its newest checkpoint."""
        state = await dependencies.current_job(job_id, principal_of(request).project)
        projection, objects, bus = dependencies.projection, dependencies.objects, dependencies.bus
        return JsonResponse(view(await resume(state, projection, objects, bus, repeated=is_repeated(request))))

    @routes.get("/jobs/{job_id}/events", response_model=FineTuningEventList)
    async def list_fine_tuning_events(
        job_id: str, request: Request, limit: EventLimit = 20, after: After = None
    ) -> Response:
        """Newest first."""
        state = await dependencies.job(job_id, principal_of(request).project)
        page = await list_messages(dependencies.database, job_id, limit=limit, after=after, order="desc")
        if page is None:
            message = f"Job {job_id} has no event {after!r} to continue after."
            raise ApiError(404, message, param="after", code="event_not_found")
        return JsonResponse(listing([event_view(message, state) for message in page.rows], page.has_more))

    @routes.get("/jobs/{job_id}/checkpoints", response_model=CheckpointList)
    async def list_fine_tuning_job_checkpoints(
        job_id: str, request: Request, limit: Limit = 10, after: After = None
    ) -> Response:
        """Newest first: those that answer as models."""
        state = await dependencies.job(job_id, principal_of(request).project)
        found = checkpoint_views(state, await store.measured(dependencies.database, job_id, checkpoint_steps(state)))
        rest = behind(found, after, lambda each: str(each["id"]))
        if rest is None:
            message = f"Job {job_id} has no checkpoint {after!r} to continue after."
            raise ApiError(404, message, param="after", code="checkpoint_not_found")
        return JsonResponse(listing(rest[:limit], len(rest) > limit))

    return routes


def _metadata(request: Request) -> Mapping[str, str] | None:
    """The pairs that the jobs must have; None: only jobs without any.

    Raises:
        ApiError: 400, the filter has another form.
    """
    found = dict[str, str]()
    for name, value in request.query_params.multi_items():
        if name == "metadata":
            if value == "null":
                return None
            message = "Invalid value for 'metadata': write metadata[key]=value, or metadata=null for jobs without any."
            raise ApiError(400, message, param="metadata", code="invalid_value")
        if match := _FILTER.fullmatch(name):
            found[match["key"]] = value
    return found or NO_FILTER
