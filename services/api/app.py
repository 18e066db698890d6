"""Puts the parts of the service together: the projection, the topics that feed it, and the HTTP interface. No decision
is made here."""

from __future__ import annotations

import socket

from fastapi import FastAPI

from services.api.database import ProjectionDatabase
from services.api.projection import Projection
from services.api.resources.dependencies import Dependencies
from services.api.resources.events import routes as events
from services.api.resources.files import routes as files
from services.api.resources.jobs import routes as jobs
from shared import ids
from shared.events import EVENTS
from shared.http.app import make_http_app
from shared.service import Context, Parts, run

TOPICS = tuple(event for event in EVENTS if "api" in event.read_by)


def main() -> None:
    run("api", build)


def build(context: Context) -> Parts:
    settings = context.settings
    database = ProjectionDatabase(settings.api.database)
    projection = Projection(database, context.objects, discover_seconds=settings.stage.discover_seconds)
    group = group_of(database, str(settings.api.database.resolve()))
    for event_type in TOPICS:
        context.bus.subscribe(event_type, projection.take, group=group)
    now = context.objects.now  # the store's clock: ours may be an hour off
    dependencies = Dependencies(database, projection, context.objects, context.bus, now, settings.api.url)
    return Parts(
        app=make_app(dependencies, settings.inference.api_keys),
        address=(settings.api.host, settings.api.port),
        background=(projection.run,),
        checks={"projection": lambda: None if projection.complete else "reading the ledger"},
        close=database.close,
    )


def make_app(dependencies: Dependencies, api_keys: tuple[str, ...]) -> FastAPI:
    app = make_http_app("Tunestream", api_keys)
    for resource in (jobs, events, files):
        app.include_router(resource.router(dependencies))
    return app


def group_of(database: ProjectionDatabase, path: str) -> str:
    """The consumer group of this database on this machine: a new database reads the topics from their beginning."""
    return f"api-{ids.derive(socket.gethostname(), path, database.database_id, chars=12)}"
