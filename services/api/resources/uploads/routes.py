"""/v1/uploads: create, add parts, complete, cancel."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from services.api.resources import answers
from services.api.resources.dependencies import Dependencies
from services.api.resources.forms import FileForm, form_schema
from services.api.resources.uploads import store
from services.api.resources.uploads.documents import Decision, Upload
from services.api.resources.uploads.domain import (
    LARGEST_PART,
    LARGEST_UPLOAD,
    MOST_PARTS,
    part_view,
    upload_view,
)
from shared.access.principal import principal_of
from shared.errors import CorruptObject
from shared.events import FrozenModel
from shared.events.limits import Id, JsonObject, Name
from shared.http.errors import ApiError
from shared.http.json_route import JsonRoute
from shared.http.responses import JsonResponse


class UploadBody(FrozenModel):
    """What a client wants to upload."""

    bytes: Annotated[int, Field(ge=1)]
    filename: Annotated[Name, Field(min_length=1)]
    mime_type: Name
    purpose: Id
    expires_after: JsonObject | None = None


class CompleteBody(FrozenModel):
    """The parts of a file, in their order."""

    part_ids: Annotated[tuple[Id, ...], Field(max_length=MOST_PARTS)]
    md5: Annotated[str | None, Field(max_length=64)] = None
    """Of the whole file, in hex."""


def router(dependencies: Dependencies) -> APIRouter:
    routes = APIRouter(tags=["uploads"], route_class=JsonRoute)
    objects = dependencies.objects

    async def found(upload_id: str, request: Request) -> Upload:
        upload = await store.find(objects, upload_id, principal_of(request).project)
        if upload is None:
            message = f"No such Upload object: {upload_id[:100]}"
            raise ApiError(404, message, param="upload_id", code="upload_not_found")
        return upload

    async def view(upload: Upload, made: Decision | None) -> JsonResponse:
        file = await store.file_of(objects, upload, made)
        return JsonResponse(upload_view(upload, made, file, objects.now()))

    @routes.post("/v1/uploads", response_model=answers.Upload)
    async def create_upload(request: Request, body: UploadBody) -> Response:
        """Begin an upload. It expires after an hour."""
        largest = min(LARGEST_UPLOAD, dependencies.largest_file)
        if body.bytes > largest:
            message = f"A file may have at most {largest:,} bytes."
            raise ApiError(413, message, param="bytes", code="file_too_large")
        upload = await store.create(
            objects,
            principal_of(request).project,
            size=body.bytes,
            filename=body.filename,
            mime_type=body.mime_type,
            purpose=body.purpose,
            expires_after=body.expires_after,
        )
        return await view(upload, None)

    @routes.post("/v1/uploads/{upload_id}/parts", response_model=answers.UploadPart, openapi_extra=form_schema("data"))
    async def add_part(upload_id: str, request: Request) -> Response:
        """Store a part of at most 64 MB. Parts may come in parallel; their order is given at the end."""
        upload = await found(upload_id, request)
        part = await store.add_part(objects, upload, FileForm(request, "data", LARGEST_PART))
        return JsonResponse(part_view(upload_id, part))

    @routes.post("/v1/uploads/{upload_id}/complete", response_model=answers.Upload)
    async def complete_upload(upload_id: str, request: Request, body: CompleteBody) -> Response:
        """Make a file of the parts. Asking again answers the same file."""
        upload = await found(upload_id, request)
        try:
            made = await store.complete(objects, upload, body.part_ids, body.md5)
        except CorruptObject as error:
            raise ApiError(502, f"A part cannot be read: {error}.", code="corrupt_object") from None
        return await view(upload, made)

    @routes.post("/v1/uploads/{upload_id}/cancel", response_model=answers.Upload)
    async def cancel_upload(upload_id: str, request: Request) -> Response:
        """End the upload without a file."""
        upload = await found(upload_id, request)
        return await view(upload, await store.cancel(objects, upload))

    return routes
