"""Reads a form with one file in it as it comes. No byte of the file waits on a disk, and no more than a chunk of the
request in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from shared.http.errors import ApiError

FIELD_BYTES = 4096
"""Of one field beside the file."""
MOST_PARTS = 64
DEFAULT_NAME = "upload"
"""The name of a file that comes without one; the official client names bytes so."""


class FileForm:
    """The form in the body of a request: fields, and one file under the name `file`.

    The fields may come behind the file, so `fields` is complete only when `chunks()` has ended.
    """

    def __init__(self, request: Request, file: str, limit: int) -> None:
        """`limit`: the most bytes that the file may have.

        Raises:
            ApiError: 400, the body is no form.
        """
        content_type, options = parse_options_header(request.headers.get("content-type"))
        boundary = options.get(b"boundary", b"")
        if content_type != b"multipart/form-data" or not boundary:
            raise _bad(f"Send the file as multipart/form-data, in a part with the name '{file}'.")
        self.fields: dict[str, str] = {}
        self.filename = DEFAULT_NAME
        self._file, self._limit = file, limit
        self._body = request.stream()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data,
                    "on_part_end": self._part_ends,
                    "on_end": self._form_ends,
                },
            )
        except FormParserError as error:
            raise _bad(f"The body is not valid multipart/form-data: {error}.") from None
        self._arrived = deque[bytes]()
        self._parts = 0
        self._name: str | None = None
        """Of the part that is being read."""
        self._header: tuple[bytes, bytes] = (b"", b"")
        self._headers: dict[bytes, bytes] = {}
        self._field = b""
        self._found = self._complete = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the file; then the rest of the form is read.

        Raises:
            ApiError: 400, the form is broken, or has no such file, or more than one; 413, the file is too large.
        """
        size = 0
        try:
            async for chunk in self._body:
                if chunk:
                    self._parser.write(chunk)
                while self._arrived:
                    piece = self._arrived.popleft()
                    size += len(piece)
                    if size > self._limit:
                        raise too_large(self._file, self._limit)
                    yield piece
        except ClientDisconnect:
            raise _bad("The connection ended before the body was complete.", code="incomplete_body") from None
        except FormParserError as error:
            raise _bad(f"The body is not valid multipart/form-data: {error}.") from None
        if not self._complete:
            raise _bad("The body ends before the form does: its last boundary is missing.", code="incomplete_body")
        if not self._found:
            raise ApiError(400, f"Missing required parameter: '{self._file}'.", param=self._file, code="missing_file")

    # --- what the parser meets ------------------------------------------------------------------------------------

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise _bad(f"The form has more than {MOST_PARTS} parts.")
        self._headers, self._header, self._field, self._name = {}, (b"", b""), b"", None

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], self._header[1])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])

    def _header_ends(self) -> None:
        name, value = self._header
        self._headers[name.lower()] = value
        self._header = (b"", b"")

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._name = _text(options.get(b"name", b""))
        if self._name == self._file:
            if self._found:
                raise _bad(f"Send one file; the form has more than one part '{self._file}'.", param=self._file)
            self._found = True
            self.filename = _file_name(_text(options.get(b"filename", b"")))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == self._file:
            self._arrived.append(data[start:end])
            return
        self._field += data[start:end]
        if len(self._field) > FIELD_BYTES:
            raise _bad(f"The field '{self._name}' is longer than {FIELD_BYTES} bytes.", param=self._name)

    def _part_ends(self) -> None:
        if self._name is not None and self._name != self._file:
            self.fields[self._name] = _text(self._field)

    def _form_ends(self) -> None:
        self._complete = True


def form_schema(file: str, fields: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """What the OpenAPI document says of a route that takes such a form (`openapi_extra`). `fields`: by name, the schema
    of each beside the file. `purpose` is needed where there is one."""
    properties = {file: {"type": "string", "format": "binary"}, **fields}
    required = [name for name in (file, "purpose") if name in properties]
    schema = {"type": "object", "required": required, "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def nested(fields: Mapping[str, str], name: str) -> dict[str, str] | None:
    """The object that a form has as `name[key]` fields; None: there is none of them."""
    found = {
        key.removeprefix(f"{name}[").removesuffix("]"): value
        for key, value in fields.items()
        if key.startswith(f"{name}[") and key.endswith("]")
    }
    return found or None


def too_large(param: str, limit: int) -> ApiError:
    return ApiError(413, f"'{param}' is larger than {limit:,} bytes.", param=param, code="file_too_large")


def _file_name(sent: str) -> str:
    """The last part of a path: browsers once sent whole paths. They, and the official client, escape three
    characters."""
    name = sent.replace("\\", "/").rsplit("/", 1)[-1]
    for escaped, plain in (("%22", '"'), ("%0D", ""), ("%0A", "")):
        name = name.replace(escaped, plain)
    name = "".join(char for char in name if char.isprintable()).strip()
    return name or DEFAULT_NAME


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _bad(message: str, *, code: str = "invalid_form", param: str | None = None) -> ApiError:
    return ApiError(400, message, code=code, param=param and param[:200])
