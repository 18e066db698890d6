"""JSON answers of the HTTP services."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse
from pydantic_core import PydanticSerializationError, to_json


class JsonResponse(JSONResponse):
    """JSON in which NaN and infinite numbers are null, because JSON has neither. A loss may be NaN.

    Half a surrogate pair, which has no UTF-8, is written as its escape, with two backslashes: an answer that repeats a
    piece of an odd request is no bug.
    """

    def render(self, content: Any) -> bytes:
        try:
            return to_json(content, inf_nan_mode="null")
        except (UnicodeEncodeError, PydanticSerializationError):
            return to_json(_writable(content), inf_nan_mode="null")


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_writable(key): _writable(item) for key, item in value.items()}
    return [_writable(item) for item in value] if isinstance(value, list | tuple) else value
