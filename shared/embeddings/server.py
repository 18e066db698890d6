"""`python -m shared.embeddings` serves the model for embeddings to the services of a stack: `POST /v1/embeddings`, as
in the OpenAI API. So torch is in one container, and evaluator and api stay small. It needs neither the object store nor
Kafka, asks for no key, and belongs into a private network."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel, Field
from starlette.types import Scope

from shared.embeddings.embedder import Embedder
from shared.embeddings.local import LocalModel
from shared.embeddings.source import trouble
from shared.errors import ConfigError
from shared.http import health
from shared.http.body_limit import BodyLimit
from shared.http.errors import ApiError, ErrorTable
from shared.http.json_route import JsonRoute
from shared.http.request_id import RequestId
from shared.http.responses import JsonResponse
from shared.service import EXIT_CONFIG
from shared.settings import load_settings
from shared.telemetry import logs

log = logging.getLogger(__name__)

MOST_BYTES = 8 * 2**20
"""Of a request. One of ours has about a sixth of it at most."""
Text = Annotated[str, Field(min_length=1, max_length=2**17)]


class Body(BaseModel):
    """Whatever `model` says, it is the one that is here."""

    model: str = ""
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=256)]


def make_app(embedder: Embedder) -> FastAPI:
    app = FastAPI(title="tunestream embeddings", openapi_url=None)
    app.router.route_class = JsonRoute
    health.mount(app, {})
    errors = ErrorTable({ConfigError: _no_model})
    errors.install(app)

    @app.post("/v1/embeddings")
    async def embeddings(body: Body) -> Response:
        """Vectors of length 1, as lists of numbers."""
        texts = [body.input] if isinstance(body.input, str) else body.input
        vectors = await embedder.embed(texts)
        data = [
            {"object": "embedding", "index": index, "embedding": list(vector)} for index, vector in enumerate(vectors)
        ]
        # tokens are not counted: nobody pays for them
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        return JsonResponse({"object": "list", "model": body.model, "data": data, "usage": usage})

    app.add_middleware(BodyLimit, limits={"/v1": MOST_BYTES})
    app.add_middleware(RequestId, errors=errors)
    return app


def main() -> None:
    """Serve until SIGTERM. If the settings are wrong, exit with one line that says so."""
    try:
        settings = load_settings()
        own = settings.embeddings.model_copy(update={"url": None})
        if why := trouble(own):
            raise ConfigError(why)
    except ConfigError as error:
        print(f"tunestream embeddings: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_CONFIG)
    logs.set_up("embeddings", settings.telemetry.log_level)
    app = make_app(Embedder(LocalModel(own.model)))
    uvicorn.run(app, host=own.host, port=own.port, log_config=None, access_log=False)


def _no_model(error: ConfigError, scope: Scope) -> ApiError:
    log.error("the model for embeddings cannot be loaded", extra={"reason": str(error)})
    return ApiError(503, str(error), code="service_unavailable")
