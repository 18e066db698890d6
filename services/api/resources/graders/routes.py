"""/fine_tuning/alpha/graders/validate and /run."""

from __future__ import annotations

import logging
import time
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, TypeAdapter, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from services.api.resources.answers import GraderFound, GraderRun
from services.api.resources.dependencies import Dependencies
from shared.access.principal import principal_of
from shared.embeddings.source import make_embedder
from shared.errors import ConfigError, TransientError
from shared.graders.domain.graders import Grader, parse
from shared.graders.domain.outcome import view
from shared.graders.embedded import check_grader
from shared.graders.judge import Judge
from shared.graders.run import run
from shared.http.errors import RETRY_SECONDS, ApiError
from shared.http.json_route import JsonRoute
from shared.http.responses import JsonResponse

log = logging.getLogger(__name__)

PREFIX = "/v1/fine_tuning/alpha/graders"


class _AsGrader:
    """A value that `parse` reads, in the document: a grader."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(_GRADER.core_schema)


_GRADER: TypeAdapter[Grader] = TypeAdapter(Grader)
# read by hand: its own errors name the field and the remedy
_Grader = Annotated[Any, _AsGrader()]
_Object = Annotated[Any, WithJsonSchema({"type": "object"})]
_Text = Annotated[Any, WithJsonSchema({"type": "string"})]


class ValidateBody(BaseModel):
    """A grader to look at."""

    model_config = ConfigDict(json_schema_extra={"required": ["grader"]})

    grader: _Grader = None


class RunBody(BaseModel):
    """A grader to run on one sample."""

    model_config = ConfigDict(json_schema_extra={"required": ["grader", "model_sample"]})

    grader: _Grader = None
    model_sample: _Text = None
    item: _Object = None
    reference_answer: Any = None
    """What clients before `item` sent; templates name it `item.reference_answer`."""


def router(dependencies: Dependencies) -> APIRouter:
    judge = Judge(dependencies.inference_url)
    embedder = make_embedder(dependencies.embeddings)
    routes = APIRouter(tags=["graders"], route_class=JsonRoute)

    @routes.post(f"{PREFIX}/validate", response_model=GraderFound)
    async def validate_grader(body: ValidateBody) -> Response:
        """The grader as it was sent, if it can be used."""
        check_grader(parse(body.grader, strictly=True), dependencies.embeddings)
        return JsonResponse({"grader": body.grader})

    @routes.post(f"{PREFIX}/run", response_model=GraderRun)
    async def run_grader(request: Request, body: RunBody) -> Response:
        """The reward of one sample. What is wrong with the sample is told by `metadata.errors`."""
        begun = time.perf_counter()
        grader = parse(body.grader)
        check_grader(grader, dependencies.embeddings)
        if not isinstance(body.model_sample, str):
            raise _invalid("model_sample", "it must be a string: what the model answered")
        item = {} if body.item is None else body.item
        if not isinstance(item, dict):
            raise _invalid("item", "it must be an object: a row of the dataset")
        if body.reference_answer is not None:
            item = {"reference_answer": body.reference_answer, **item}
        try:
            outcome = await run(grader, body.model_sample, item, judge, embedder, _sender(request))
        except (TransientError, ConfigError) as error:
            raise _no_embeddings(error) from None
        return JsonResponse(view(grader, outcome, time.perf_counter() - begun))

    return routes


def _invalid(field: str, reason: str) -> ApiError:
    return ApiError(400, f"{field}: {reason}.", param=field, code="invalid_value")


def _no_embeddings(error: TransientError | ConfigError) -> ApiError:
    log.error("there are no embeddings for a grader", extra={"reason": str(error)})
    message = "The model for embeddings does not answer right now; try again in a moment."
    if isinstance(error, ConfigError):
        message = "These settings lead to no model for embeddings; the log of the api service says why."
    return ApiError(503, message, code="service_unavailable", headers={"retry-after": str(RETRY_SECONDS)})


def _sender(request: Request) -> dict[str, bytes]:
    """The headers by which the endpoint knows who asks, and the trace that the question belongs to."""
    headers = {"openai-project": principal_of(request).project, "traceparent": request.state.traceparent}
    if key := request.headers.get("authorization"):
        headers["authorization"] = key
    # as they came: httpx would refuse what is not ASCII
    return {name: value.encode("latin-1", "replace") for name, value in headers.items()}
