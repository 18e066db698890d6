"""vLLM's errors in OpenAI's form."""

from __future__ import annotations

from shared import strict_json
from shared.http.errors import ApiError

CONTEXT_LENGTH = "maximum context length"
PASSED_ON = (400, 404, 413, 429, 500, 503)
"""The statuses that clients of this endpoint know. Another one becomes 400 or 500."""
NO_TOOL_PARSER = "--tool-call-parser"
"""The option that vLLM 0.26 and 0.32 name when they are asked for tool calls and have no parser."""


def as_api_error(status: int, body: bytes, route: str, model: str) -> ApiError:
    """The error that vLLM answered with `status` and `body` to a request for `model`. vLLM's codes are numbers, and its
    answer for an unknown route has no envelope."""
    known = status if status in PASSED_ON else 400 if status < 500 else 500
    try:
        error = strict_json.loads(body)["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, LookupError, TypeError, AttributeError):
        if status == 404:
            return ApiError(400, f"The model served here does not support {route}.", code="unsupported_endpoint")
        return ApiError(known, f"The model server answered {status} without a reason.", code="bad_gateway")
    if status == 404:
        return ApiError(404, message, code="model_not_found", param="model")
    if NO_TOOL_PARSER in message:
        return ApiError(
            400,
            f"The model `{model}` is served without tool calls: its base has none, or no parser is known for "
            'them. Leave `tools` out, or set `tool_choice` to "none" and get what the model writes as text. '
            "Whoever runs the server can name a parser: see Tools in the README of the inference service.",
            code="tools_not_supported",
            param="tools",
        )
    code = "context_length_exceeded" if CONTEXT_LENGTH in message else None
    return ApiError(known, message, code=code, param=param if isinstance(param, str) else None)
