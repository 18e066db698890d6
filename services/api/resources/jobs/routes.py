"""/jobs: list, retrieve, cancel, pause, resume, retry."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from services.api.domain.state import Status
from services.api.resources.answers import Job, JobList
from services.api.resources.dependencies import Dependencies
from services.api.resources.jobs import store
from services.api.resources.jobs.domain import first_stage
from services.api.resources.lists import listing
from shared.access.principal import principal_of
from shared.access.tuned_models import is_deleted
from shared.events import StrictModel
from shared.http.errors import ApiError
from shared.http.json_route import JsonRoute
from shared.http.repeated import is_repeated
from shared.http.responses import JsonResponse


class RetryBody(StrictModel):
    """What a client sends to try a job again."""

    from_: Annotated[str | None, Field(alias="from", max_length=64)] = None
    """The stage to begin from; None: the one in which the job failed or was cancelled."""


def router(dependencies: Dependencies) -> APIRouter:
    routes = APIRouter(tags=["jobs"], route_class=JsonRoute)

    @routes.get("/jobs", response_model=JobList)
    async def list_jobs(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: str | None = None,
        status: Status | None = None,
    ) -> Response:
        """Newest first; `after` is the id of the last job of the page before."""
        page = await store.list_jobs(
            dependencies.database, principal_of(request).project, limit=limit, after=after, status=status
        )
        if page is None:
            raise ApiError(404, f"There is no job {after!r} to continue after.", param="after", code="job_not_found")
        jobs = listing([dependencies.view(state) for state in page.rows], page.has_more)
        return JsonResponse(jobs | {"notes": dependencies.notes()})

    @routes.get("/jobs/{job_id}", response_model=Job)
    async def retrieve_job(job_id: str, request: Request) -> Response:
        """The job with its stages. `as_of` says when it was so, `notes` what is away."""
        return JsonResponse(dependencies.view(await dependencies.job(job_id, principal_of(request).project)))

    @routes.post("/jobs/{job_id}/cancel", response_model=Job)
    async def cancel_job(job_id: str, request: Request) -> Response:
        """Ask for the job to end, and answer at once. The job is `cancelled` when its owner has stopped working."""
        state = await dependencies.current_job(job_id, principal_of(request).project)
        await store.cancel(state, dependencies.objects, dependencies.bus, repeated=is_repeated(request))
        return JsonResponse(dependencies.view(state))

    @routes.post("/jobs/{job_id}/pause", response_model=Job)
    async def pause_job(job_id: str, request: Request) -> Response:
        """Let the job rest until it is resumed, and answer at once. A training writes a checkpoint and gives back the
        GPU. Pausing a paused job answers with it."""
        state = await dependencies.current_job(job_id, principal_of(request).project)
        state = await store.pause(state, dependencies.projection, dependencies.objects, dependencies.bus)
        return JsonResponse(dependencies.view(state))

    @routes.post("/jobs/{job_id}/resume", response_model=Job)
    async def resume_job(job_id: str, request: Request) -> Response:
        """Let a paused job go on from its newest checkpoint. It is `queued` until a stage works on it again."""
        state = await dependencies.current_job(job_id, principal_of(request).project)
        projection, objects, bus = dependencies.projection, dependencies.objects, dependencies.bus
        state = await store.resume(state, projection, objects, bus, repeated=is_repeated(request))
        return JsonResponse(dependencies.view(state))

    @routes.post("/jobs/{job_id}/retry", response_model=Job)
    async def retry_job(job_id: str, request: Request, body: RetryBody | None = None) -> Response:
        """Make a new job that takes over the results before the stage that it begins from. Answers with the new job.

        Asking again answers with the same job, until that has failed or was cancelled.
        """
        state = await dependencies.current_job(job_id, principal_of(request).project)
        stage = first_stage(state, body.from_ if body else None)
        if stage in ("evaluator", "inference") and await is_deleted(dependencies.objects, job_id):
            raise ApiError(
                400,
                f"The model of job {job_id} was deleted, so there is nothing for the stage {stage} to begin from. "
                'Begin from the trainer: {"from": "trainer"}.',
                param="from",
                code="model_deleted",
                headers={"x-should-retry": "false"},
            )
        projection, objects, bus = dependencies.projection, dependencies.objects, dependencies.bus
        job = await store.retry(state, stage, projection, objects, bus, request.state.traceparent)
        return JsonResponse(dependencies.view(job))

    return routes
