"""/jobs/{id}/report and /jobs/{id}/files/{name}: the artifacts of a job, read from the object store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from services.api.resources.artifacts.domain import (
    MEDIA_TYPES,
    OTHER_TYPE,
    failed_report_keys,
    media_type,
    names_of,
    references,
)
from services.api.resources.artifacts.store import open_verified
from services.api.resources.dependencies import Dependencies
from shared.access.principal import principal_of
from shared.errors import CorruptObject
from shared.events import Reference
from shared.http.errors import ApiError
from shared.http.openapi import answers_with

ALL_TYPES = (*MEDIA_TYPES.values(), OTHER_TYPE)
CHUNK = 2**16
HEADERS = {
    "x-content-type-options": "nosniff",
    # a report quotes rows and answers; if a browser ever runs a quoted script, it can reach nothing
    "content-security-policy": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:",
}


def router(dependencies: Dependencies) -> APIRouter:
    routes = APIRouter(tags=["artifacts"])

    @routes.get("/jobs/{job_id}/report", response_class=StreamingResponse, responses=answers_with("text/html"))
    async def retrieve_report(job_id: str, request: Request) -> Response:
        """The evaluation side by side, as one self-contained HTML page."""
        state = await dependencies.job(job_id, principal_of(request).project)
        if html := references(state).get("report.html"):
            return await _send(dependencies, "report.html", html)
        message = f"Job {job_id} was not evaluated yet (it is {state.status}); there is no report yet."
        raise ApiError(404, message, param="job_id", code="report_not_found")

    @routes.get("/jobs/{job_id}/files/{name}", response_class=StreamingResponse, responses=answers_with(*ALL_TYPES))
    async def retrieve_artifact(job_id: str, name: str, request: Request) -> Response:
        """One of the job's `files`. Its digest is verified."""
        state = await dependencies.job(job_id, principal_of(request).project)
        if reference := references(state).get(name):
            return await _send(dependencies, name, reference)
        key = failed_report_keys(state).get(name)
        if key and (found := await dependencies.objects.get(key)):
            return Response(found[0], media_type=media_type(name), headers=HEADERS)
        there = ", ".join(names_of(state)) or "none yet"
        raise ApiError(404, f"Job {job_id} has no file {name!r}; it has: {there}.", param="name", code="file_not_found")

    return routes


async def _send(dependencies: Dependencies, name: str, reference: Reference) -> Response:
    try:
        file = await open_verified(dependencies.objects, reference)
    except CorruptObject as error:
        raise ApiError(502, f"{name} cannot be read: {error}.", code="corrupt_object") from None
    return StreamingResponse(
        _chunks(file), media_type=media_type(name), headers={**HEADERS, "content-length": str(reference.size)}
    )


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk
