"""JSON answers of the HTTP services."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse
from pydantic_core import to_json


class JsonResponse(JSONResponse):
    """JSON in which a figure that is not a number is null. A loss may be NaN, and JSON has no word for that."""

    def render(self, content: Any) -> bytes:
        return to_json(content, inf_nan_mode="null")
