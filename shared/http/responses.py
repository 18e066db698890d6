"""JSON answers of the HTTP services."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse
from pydantic_core import to_json


class JsonResponse(JSONResponse):
    """JSON in which NaN and infinite numbers are null, because JSON has neither. A loss may be NaN."""

    def render(self, content: Any) -> bytes:
        return to_json(content, inf_nan_mode="null")
