"""/sweeps: create, list, retrieve, cancel, report."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import HTMLResponse

from services.api.domain.sweeps.documents import Documents, is_sweep_id
from services.api.resources.artifacts.routes import HEADERS
from services.api.resources.dependencies import Dependencies
from services.api.resources.lists import behind, listing
from services.api.resources.sweeps import store
from services.api.resources.sweeps.answers import Sweep, SweepList
from services.api.resources.sweeps.domain import CreateSweep, sweep_view
from services.api.sweeps.page.render import render
from services.api.sweeps.standings import Standings
from services.api.sweeps.store import SweepStore
from shared.access.keyring import limits_of
from shared.access.principal import principal_of
from shared.http.errors import ApiError
from shared.http.json_route import JsonRoute
from shared.http.openapi import answers_with
from shared.http.repeated import is_repeated
from shared.http.responses import JsonResponse


def router(dependencies: Dependencies) -> APIRouter:
    routes = APIRouter(prefix="/sweeps", tags=["sweeps"], route_class=JsonRoute)
    sweeps = SweepStore(dependencies.objects)
    standings = Standings(dependencies.objects, dependencies.database, dependencies.projection)

    async def own(request: Request, sweep_id: str) -> Documents:
        """The sweep, if it is of the sender's project."""
        project = principal_of(request).project
        found = await sweeps.find_of(sweep_id, project) if is_sweep_id(sweep_id) else None
        if found is None:
            message = f"There is no sweep {sweep_id!r}; GET /sweeps lists them."
            raise ApiError(404, message, param="sweep_id", code="sweep_not_found")
        return found

    async def view(documents: Documents) -> dict[str, Any]:
        url = f"{dependencies.url.rstrip('/')}/sweeps/{documents.sweep.sweep_id}"
        now, notes = dependencies.objects.now(), dependencies.notes()
        return sweep_view(documents, await standings.of(documents), url=url, now=now, notes=notes)

    @routes.post("", response_model=Sweep)
    async def create_sweep(
        body: CreateSweep,
        request: Request,
        idempotency_key: Annotated[str | None, Header(max_length=256)] = None,
    ) -> Response:
        """Search for the settings that train the best model. Requests with the same `Idempotency-Key` are one sweep."""
        made = await store.create_sweep(
            dependencies,
            sweeps,
            body,
            principal_of(request),
            most=limits_of(request).max_open_jobs,
            sent=await request.body(),
            idempotency_key=idempotency_key,
            repeated=is_repeated(request),
            traceparent=request.state.traceparent,
        )
        dependencies.sweeps_wanted.set()
        return JsonResponse(await view(made))

    @routes.get("", response_model=SweepList)
    async def list_sweeps(
        request: Request, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: str | None = None
    ) -> Response:
        """Newest first, without their trials; `after` is the id of the last sweep of the page before."""
        project = principal_of(request).project
        known = await sweeps.all(project)
        rest = behind(known, after, lambda each: each.sweep.sweep_id)
        if rest is None:
            message = f"There is no sweep {after!r} to continue after."
            raise ApiError(404, message, param="after", code="sweep_not_found")
        shown = [await view(each) | {"data": []} for each in rest[:limit]]
        return JsonResponse(listing(shown, len(rest) > limit))

    @routes.get("/{sweep_id}", response_model=Sweep)
    async def retrieve_sweep(sweep_id: str, request: Request) -> Response:
        """The sweep with its trials, each with its validation losses so far."""
        return JsonResponse(await view(await own(request, sweep_id)))

    @routes.post("/{sweep_id}/cancel", response_model=Sweep)
    async def cancel_sweep(sweep_id: str, request: Request) -> Response:
        """Ask for the end of the sweep, and answer at once. Its trials are cancelled within seconds; the models that
        are trained stay."""
        cancelled = await store.cancel_sweep(dependencies, sweeps, await own(request, sweep_id))
        dependencies.sweeps_wanted.set()
        return JsonResponse(await view(cancelled))

    @routes.get("/{sweep_id}/report", response_class=HTMLResponse, responses=answers_with("text/html"))
    async def retrieve_sweep_report(sweep_id: str, request: Request) -> Response:
        """Table and plots as one self-contained HTML page, as the sweep is now."""
        documents = await own(request, sweep_id)
        found = await standings.of(documents)
        return HTMLResponse(render(documents, found, await view(documents)), headers=HEADERS)

    return routes
