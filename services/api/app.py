"""Puts the parts of the service together: the projection, the topics that feed it, the HTTP interface, the janitor,
the sender of webhooks, and the runner of sweeps. No decision is made here."""

from __future__ import annotations

import logging
import socket
import time

from fastapi import FastAPI
from starlette.types import Scope

from services.api.database import ProjectionDatabase
from services.api.duty import new_owner
from services.api.janitor.start import make_janitor
from services.api.projection import Projection
from services.api.resources.artifacts import routes as artifacts
from services.api.resources.dependencies import Dependencies
from services.api.resources.events import routes as events
from services.api.resources.files import routes as files
from services.api.resources.fine_tuning import routes as fine_tuning
from services.api.resources.graders import routes as graders
from services.api.resources.jobs import routes as jobs
from services.api.resources.keys import routes as keys
from services.api.resources.permissions import routes as permissions
from services.api.resources.sweeps import routes as sweeps
from services.api.resources.uploads import routes as uploads
from services.api.resources.uploads.domain import LARGEST_PART
from services.api.resources.webhooks import routes as webhooks
from services.api.sweeps.start import make_runner
from services.api.webhooks.ended import EndedJobs
from services.api.webhooks.receivers import Receivers
from services.api.webhooks.sender import Sender
from shared import ids
from shared.access.keyring import Keyring
from shared.access.rights import ANY, OPENAI, Line, RightsTable
from shared.errors import ConfigError, StoreRefused
from shared.events import EVENTS
from shared.http import forward
from shared.http.app import make_http_app
from shared.http.errors import ApiError, ErrorTable
from shared.http.forward import Forwarder, Other
from shared.service import Context, Parts, run

log = logging.getLogger(__name__)

TOPICS = tuple(event for event in EVENTS if "api" in event.read_by)


ABOUT = (
    "OpenAI's files, uploads, fine-tuning jobs, graders and webhooks, and what Tunestream has beside them. What the "
    "project of the key does not have is 404, and so is an unknown path; another method is 405; all in OpenAI's "
    "envelope. Chat, completions, embeddings and models are forwarded to the inference service, whose document "
    "describes them."
)
TAGS = [
    {"name": "files", "description": "OpenAI's Files API: datasets, and the result files of jobs."},
    {"name": "uploads", "description": "OpenAI's Uploads API: a large file in parts."},
    {"name": "fine_tuning", "description": "OpenAI's fine-tuning jobs. A dataset that was dropped is a job here, too."},
    {"name": "permissions", "description": "Which other projects may use a tuned model."},
    {"name": "graders", "description": "OpenAI's graders: check one, or score a sample with it."},
    {"name": "webhooks", "description": "Where the ends of jobs are told, signed as OpenAI signs."},
    {"name": "jobs", "description": "Tunestream's own view of the same jobs: stages, figures, what is waited for."},
    {"name": "sweeps", "description": "Searches for the settings that train the best model. Each trial is a job."},
    {"name": "events", "description": "The history of a job."},
    {"name": "artifacts", "description": "The files that a job has made: its report, its adapter, its plots."},
    {"name": "keys", "description": "API keys, with project, rights and limits. An admin key is needed."},
]
FORM_BYTES = 2**20
"""What a form has beside its file."""


def main() -> None:
    run("api", build)


def build(context: Context) -> Parts:
    settings = context.settings
    database = ProjectionDatabase(settings.api.database)
    projection = Projection(
        database,
        context.objects,
        discover_seconds=settings.stage.discover_seconds,
        bus_away=lambda: _seconds_since(context.bus.away_since),
    )
    group = group_of(database, str(settings.api.database.resolve()))
    for event_type in TOPICS:
        context.bus.subscribe(event_type, projection.take, group=group)
    receivers = Receivers(private=settings.webhooks.private_addresses)
    dependencies = Dependencies(
        database,
        projection,
        context.objects,
        context.bus,
        settings.api.url,
        settings.model,
        largest_file=settings.api.largest_file,
        inference_url=settings.inference.url,
        embeddings=settings.embeddings,
        tracked=frozenset({"wandb"} if settings.tracking.wandb else ()),
        receivers=receivers,
        largest_rank=settings.vllm.max_lora_rank,
    )
    runner = make_runner(dependencies, owner=new_owner())
    ended = EndedJobs(database, projection.mend)
    sender = Sender(context.objects, ended, receivers, dependencies.webhooks_wanted, owner=new_owner())
    forwarder = Forwarder(Other("inference", settings.inference.url, "TUNESTREAM_INFERENCE__URL"), forward.MODELS)

    async def close() -> None:
        await forwarder.close()
        await database.close()

    return Parts(
        app=make_app(dependencies, settings.inference.api_keys, settings.model.organization, forwarder),
        address=(settings.api.host, settings.api.port),
        background=(projection.run, make_janitor(context.objects, database, settings).run, sender.run, runner.run),
        checks={"projection": lambda: None if projection.complete else "reading the ledger"},
        close=close,
    )


def _seconds_since(moment: float | None) -> float | None:
    return None if moment is None else time.monotonic() - moment


RIGHTS = RightsTable(
    (
        *OPENAI,
        Line(ANY, "/jobs*", ("train",)),
        Line(ANY, "/sweeps*", ("train",)),
        Line(ANY, "/keys*", ("admin",)),
    )
)


def make_app(
    dependencies: Dependencies, api_keys: tuple[str, ...], organization: str = "", forwarder: Forwarder | None = None
) -> FastAPI:
    """`forwarder` hands to the inference service what is its own."""
    errors = ErrorTable({ConfigError: _store_refuses, StoreRefused: _object_refused})
    limits: dict[str, int | None] = {
        "/v1/files": dependencies.largest_file + FORM_BYTES,
        "/v1/uploads/*/parts": LARGEST_PART + FORM_BYTES,
        # the inference service has limits of its own for what is handed to it
        **dict.fromkeys(forward.MODELS),
    }
    keyring = Keyring(dependencies.objects, api_keys)
    app = make_http_app(
        "Tunestream: files, jobs and keys",
        keyring,
        rights=RIGHTS,
        organization=organization,
        errors=errors,
        limits=limits,
        description=ABOUT,
        openapi_tags=TAGS,
        responses={502: {}},  # the store may refuse any object, or hold a damaged one
        handed_on=forward.MODELS if forwarder is not None else (),
    )
    for resource in (jobs, events, artifacts, files, uploads, permissions, fine_tuning, graders, sweeps, webhooks):
        app.include_router(resource.router(dependencies))
    app.include_router(keys.router(keyring, dependencies.objects))
    if forwarder is not None:
        app.include_router(forwarder.router())
    return app


def _store_refuses(error: ConfigError, scope: Scope) -> ApiError:
    log.error("the object store refuses this service", extra={"reason": str(error)})
    message = "The object store refuses the api service, whose log says why; try again when that is mended."
    return ApiError(503, message, code="service_unavailable", headers={"retry-after": "30"})


def _object_refused(error: StoreRefused, scope: Scope) -> ApiError:
    return ApiError(502, f"The object store refuses this object ({error.code}).", code="object_refused")


def group_of(database: ProjectionDatabase, path: str) -> str:
    """The consumer group of this database on this machine: a new database reads the topics from their beginning."""
    return f"api-{ids.derive(socket.gethostname(), path, database.database_id, chars=12)}"
