"""The route class of this resource: what is wrong with a request is told with 400, in OpenAI's words."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError

from shared.http.errors import ApiError
from shared.http.json_route import JsonRoute

MOST_CHARS = 200  # of a parameter's name


class OpenAIRoute(JsonRoute):
    """Answers a wrong parameter as OpenAI does: 400, with the path of the parameter."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise told(error) from None

        return answer


def told(error: RequestValidationError) -> ApiError:
    """The answer to a request whose parameters are wrong: it names the first of them."""
    problems = error.errors()
    body = error.body if problems[0]["loc"][0] == "body" else None
    first, kind = _path(problems[0], body), problems[0]["type"]
    if not first:
        return ApiError(400, "The body must be a JSON object; send one, as application/json.", code="invalid_type")
    shown = first[:MOST_CHARS]
    if kind == "missing":
        message = f"Missing required parameter: '{shown}'."
        return ApiError(400, message, param=shown, code="missing_required_parameter")
    if kind == "extra_forbidden":
        return ApiError(400, f"Unknown parameter: '{shown}'.", param=shown, code="unknown_parameter")
    # a value that may be one of several things has a problem with each of them
    same = [problem for problem in problems if _path(problem, body) == first]
    wrong_type = all(problem["type"].endswith("_type") for problem in same)
    reasons = ", or ".join(dict.fromkeys(_reason(problem) for problem in same))
    what, code = ("type", "invalid_type") if wrong_type else ("value", "invalid_value")
    return ApiError(400, f"Invalid {what} for '{shown}': {reasons}.", param=shown, code=code)


def _reason(problem: Any) -> str:
    message = str(problem["msg"])
    return message[:1].lower() + message[1:]


def _path(problem: Any, body: Any) -> str:
    """The name of the parameter. pydantic's location may go on with the alternatives of a value, which are no part of
    it; of a query the name is all."""
    location: Sequence[Any] = problem["loc"][1:]
    if problem["loc"][0] != "body":
        return ".".join(map(str, location))
    found = list[str]()
    for part in location:
        inside = isinstance(body, dict) and part in body
        if inside or (isinstance(body, list) and isinstance(part, int) and part < len(body)):
            body = body[part]
        elif problem["type"] != "missing" or part != location[-1]:
            break
        found.append(str(part))
    return ".".join(found)
