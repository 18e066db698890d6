"""/v1/files: create, list, retrieve, content, delete."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from services.api.resources.answers import Deleted, File, FileList
from services.api.resources.dependencies import Dependencies
from services.api.resources.files import store
from services.api.resources.files.domain import LONGEST_SECONDS, PURPOSES, SHORTEST_SECONDS, file_view
from services.api.resources.files.index import FileIndex
from services.api.resources.forms import FileForm, form_schema
from services.api.resources.lists import listing
from shared.access.principal import principal_of
from shared.errors import CorruptObject
from shared.events import StoredFile
from shared.http.errors import ApiError
from shared.http.openapi import answers_with
from shared.http.repeated import is_repeated
from shared.http.responses import JsonResponse

BYTES = "application/octet-stream"
FORM = form_schema(
    "file",
    {
        "purpose": {"type": "string", "enum": list(PURPOSES)},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": SHORTEST_SECONDS, "maximum": LONGEST_SECONDS},
    },
)


def router(dependencies: Dependencies) -> APIRouter:
    routes = APIRouter(tags=["files"])
    objects, projection = dependencies.objects, dependencies.projection
    index = FileIndex(objects, dependencies.database)

    async def found(file_id: str, request: Request) -> StoredFile:
        file = await store.find(objects, projection, file_id, principal_of(request).project)
        if file is None:
            raise _no_such_file(file_id)
        return file

    @routes.post("/v1/files", response_model=File, openapi_extra=FORM)
    async def create_file(request: Request) -> Response:
        """Store a file. Its bytes go to the object store as they come."""
        form = FileForm(request, "file", dependencies.largest_file)
        return JsonResponse(file_view(await store.create(objects, form, principal_of(request).project)))

    @routes.get("/v1/files", response_model=FileList)
    async def list_files(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
        purpose: str | None = None,
    ) -> Response:
        """Newest first, or oldest first; `after` is the id of the last file of the page before, even if that was
        deleted since."""
        page = await index.page(principal_of(request).project, limit=limit, after=after, order=order, purpose=purpose)
        if page is None:
            message = f"There is no file {after!r} to continue after."
            raise ApiError(404, message, param="after", code="file_not_found")
        return JsonResponse(listing(page.rows, page.has_more))

    @routes.get("/v1/files/{file_id}", response_model=File)
    async def retrieve_file(file_id: str, request: Request) -> Response:
        """What is known of the file. Its bytes are at `/content`."""
        return JsonResponse(file_view(await found(file_id, request)))

    @routes.get("/v1/files/{file_id}/content", response_class=StreamingResponse, responses=answers_with(BYTES))
    async def file_content(file_id: str, request: Request, encoding: Literal["base64"] | None = None) -> Response:
        """The bytes of the file. With `encoding=base64` they come as OpenAI's result files do."""
        file = await found(file_id, request)
        chunks = objects.stream(file.content)
        try:
            first = await anext(chunks, b"")
        except CorruptObject as error:
            raise ApiError(502, f"The file {file_id} cannot be read: {error}.", code="corrupt_object") from None
        body, size = _rest(first, chunks), file.content.size
        if encoding is not None:
            body, size = _base64(body), (size + 2) // 3 * 4
        headers = {
            "content-length": str(size),
            "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
            "x-content-type-options": "nosniff",
        }
        return StreamingResponse(body, media_type=BYTES, headers=headers)

    @routes.delete("/v1/files/{file_id}", response_model=Deleted)
    async def delete_file(file_id: str, request: Request) -> Response:
        """From now on nobody finds the file. A job that is under way and uses it still reads it to its end."""
        if is_repeated(request):  # the answer to the first try may have been lost
            project = principal_of(request).project
            if await store.find_even_if_deleted(objects, projection, file_id, project) is None:
                raise _no_such_file(file_id)
            await store.bury(objects, file_id)
        else:
            await found(file_id, request)
            if not await store.bury(objects, file_id):
                raise _no_such_file(file_id)
        await index.forget(file_id)
        return JsonResponse({"id": file_id, "object": "file", "deleted": True})

    return routes


def _no_such_file(file_id: str) -> ApiError:
    return ApiError(404, f"No such File object: {file_id[:100]}", param="id", code="file_not_found")


async def _rest(first: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(chunks):  # type: ignore[type-var]
        yield first
        async for chunk in chunks:
            yield chunk


async def _base64(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    left = b""
    async for chunk in chunks:
        data = left + chunk
        whole = len(data) - len(data) % 3  # three bytes become four characters
        left = data[whole:]
        yield base64.b64encode(data[:whole])
    yield base64.b64encode(left)
