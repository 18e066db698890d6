"""An api service over HTTP, receivers of webhooks on sockets, and senders that are replicas of each other."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from fastapi import FastAPI, Request, Response
from openai.types.webhooks import WebhookEndpointWithSecret

from services.api.app import make_app
from services.api.database import ProjectionDatabase
from services.api.projection import Projection
from services.api.resources.dependencies import Dependencies
from services.api.webhooks.ended import EndedJobs
from services.api.webhooks.receivers import Receivers
from services.api.webhooks.sender import Sender
from shared.retry import Backoff
from tests.support.data.job_history import JobHistory
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.clock import Clock
from tests.support.fakes.servers import Server
from tests.support.fakes.store import FakeStore

SUCCEEDED = "fine_tuning.job.succeeded"
FAILED = "fine_tuning.job.failed"
CANCELLED = "fine_tuning.job.cancelled"
HOUR = 3600.0


async def certain() -> None:
    """The lease of a test without one."""


@dataclass
class Got:
    """One request that a receiver got."""

    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Takes webhooks on a socket. `status` is its answer; `free` can be cleared to have it think."""

    got: list[Got] = field(default_factory=list)
    status: int = 204
    first: list[int] = field(default_factory=list)
    """What the next requests are answered, before `status` counts."""
    free: asyncio.Event = field(default_factory=asyncio.Event)
    elsewhere: int = 0
    """Requests for another path than the hook's, such as the one that it redirects to."""

    def __post_init__(self) -> None:
        self.free.set()
        self.server = Server(self._app())

    @property
    def url(self) -> str:
        return f"{self.server.url}/hook?a=b%20c"

    @property
    def ids(self) -> list[str]:
        return [each.headers["webhook-id"] for each in self.got]

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.post("/hook")
        async def hook(request: Request) -> Response:
            assert request.url.query == "a=b%20c"
            self.got.append(Got(dict(request.headers), await request.body()))
            await self.free.wait()
            status = self.first.pop(0) if self.first else self.status
            return Response(status_code=status, headers={"location": "/elsewhere"})

        @app.api_route("/elsewhere", methods=["GET", "POST"])
        async def elsewhere() -> Response:
            self.elsewhere += 1
            return Response()

        return app


class Replica:
    """One process of the api service: a database, a projection, HTTP, and a sender."""

    def __init__(self, world: World, path: Path, name: str) -> None:
        self.objects = world.store
        self.stack = world.stack
        self.database = ProjectionDatabase(path)
        self.projection = Projection(self.database, self.objects, discover_seconds=10)
        receivers = Receivers(private=world.private, limit_seconds=world.limit_seconds)
        dependencies = Dependencies(
            self.database, self.projection, self.objects, FakeBus(), "http://api.test", receivers=receivers
        )
        self.wanted = dependencies.webhooks_wanted
        self.server = Server(make_app(dependencies, ("key",)))
        self.sender = Sender(
            self.objects,
            EndedJobs(self.database, self.projection.mend),
            receivers,
            self.wanted,
            owner=name,
            pauses=Backoff(10.0, HOUR),
            round_seconds=0.01,
            ask_seconds=0.02,
            look_seconds=world.look_seconds,
            lease_seconds=world.lease_seconds,
        )

    async def round(self) -> None:
        """What the sender does in one round, to its end."""
        await self.projection.reconcile()
        await self.sender.round(certain)
        await self.sender.sent()

    def client(self, project: str = "default") -> openai.AsyncOpenAI:
        url = f"{self.server.url}/v1"
        client = openai.AsyncOpenAI(base_url=url, api_key="key", project=project, max_retries=0)
        self.stack.push_async_callback(client.close)
        return client


class World:
    """What outlives a process: the store and the clock."""

    def __init__(self, folder: Path, clock: Clock, store: Any = None) -> None:
        """`store`: a real one, instead of one in memory."""
        self.folder = folder
        self.clock = clock
        self.store: FakeStore = store or FakeStore(clock=clock)
        self.private = True
        self.limit_seconds = 10.0
        self.look_seconds = 600.0
        self.lease_seconds = 90.0
        self.stack = AsyncExitStack()
        self._count = 0

    async def replica(self, name: str = "one") -> Replica:
        """Start a process with a database of its own."""
        self._count += 1
        replica = Replica(self, self.folder / f"{self._count}.sqlite3", name)
        self.stack.push_async_callback(replica.database.close)
        await self.stack.enter_async_context(replica.server.running())
        return replica

    async def receiver(self) -> Receiver:
        receiver = Receiver()
        await self.stack.enter_async_context(receiver.server.running())
        return receiver

    async def end(self, number: int, how: str = "succeeded", project: str = "default", after: float = 5.0) -> str:
        """Let a job begin long ago and end `after` seconds from now. Returns its id."""
        history = JobHistory(number, created_at=self.clock.now - HOUR)
        history.job = history.job.model_copy(update={"project": project})
        at = HOUR + after
        if how == "succeeded":
            await history.write_documents(self.store, until="evaluator")
            await history.finish(self.store, "inference", history.ended, at, "completed")
        else:
            await history.write_documents(self.store, until="validate")
            event = history.failed(code="out_of_memory" if how == "failed" else how)
            await history.finish(self.store, "trainer", event, at, how)
        self.clock.now += after
        return history.job_id

    async def endpoint(
        self, replica: Replica, receiver: Receiver, *types: str, project: str = "default"
    ) -> WebhookEndpointWithSecret:
        wanted: Any = list(types or (SUCCEEDED, FAILED, CANCELLED))
        return await replica.client(project).webhooks.create(name="ours", url=receiver.url, event_types=wanted)
