"""Runs the process of a service: reads the settings, sets up telemetry, connects store and bus, starts the stage runner
and the HTTP server, and stops everything on a signal.

`app.py` of a service calls `run(name, build)`. `build(context)` makes the parts of the service, and may subscribe to
topics.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI

from shared import ids, telemetry
from shared.errors import ConfigError, StoreUnavailable
from shared.events import Event, JobControl, StageName
from shared.http import health
from shared.http.metrics import HttpMetrics
from shared.kafka import lag
from shared.kafka.bus import Bus, Delivery
from shared.retry import Backoff, retry
from shared.settings import Settings, load_settings
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES, Work
from shared.store.objects import ObjectStore
from shared.tasks import cancel_and_wait
from shared.telemetry import metrics, otlp

log = logging.getLogger(__name__)

STORE_PAUSES = Backoff(0.25, 3.0)
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: restarting does not help


@dataclass(frozen=True)
class Context:
    """What `build` makes the parts of a service from."""

    settings: Settings
    objects: ObjectStore
    bus: Bus


@dataclass(frozen=True)
class Parts:
    """The parts of a service; each may be missing.

    `app` is served at `address`, with /health added. `background` tasks run as long as the service does;
    if one fails, the service fails. `checks` are added to those of /health/ready. `close` is awaited at the end.
    """

    work: Work | None = None
    app: FastAPI | None = None
    address: tuple[str, int] | None = None
    background: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = ()
    checks: dict[str, health.Check] = field(default_factory=dict)
    close: Callable[[], Awaitable[None]] | None = None


def run_stage_service(name: StageName, make_work: Callable[[Context], Work]) -> None:
    """Run a service that is only a stage: no HTTP interface of its own."""
    run(name, lambda context: Parts(work=make_work(context)))


def run(name: str, build: Callable[[Context], Parts], *, uvloop: bool = False) -> None:
    """Run a service until SIGTERM. If the settings are wrong, exit with one line that says so. `uvloop`: see
    `run_async`."""
    try:
        settings = load_settings()
        telemetry.set_up(name, settings.telemetry)
        run_async(_serve(name, settings, build), uvloop=uvloop)
    except ConfigError as error:
        print(f"tunestream {name}: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_CONFIG)
    finally:
        otlp.stop()


def run_async(main: Coroutine[Any, Any, None], *, uvloop: bool = False) -> None:
    """`asyncio.run`. `uvloop`: on the event loop of that name, which makes less work of a request, where it exists."""
    factory = None
    if uvloop:
        with contextlib.suppress(ImportError):  # it does not exist for Windows
            factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


async def _serve(name: str, settings: Settings, build: Callable[[Context], Parts]) -> None:
    objects = ObjectStore.connect(settings.store)
    context = Context(settings, objects, Bus(settings.bus, name, objects.now))
    parts = build(context)
    runner = _runner(name, context, parts.work) if parts.work else None
    started = asyncio.Event()
    checks: dict[str, health.Check] = {
        "start": lambda: None if started.is_set() else "starting",
        "bus": health.bus_check(context.bus),
        **parts.checks,
    }
    servers = [
        _Server(uvicorn.Config(app, host=host, port=port, log_config=None, access_log=False))
        for app, (host, port) in faces(name, settings, parts, checks, lambda: lag.measure(context.bus))
    ]

    async def listen() -> None:
        await context.bus.start()
        log.info("connected to the bus")
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            await wait_for_store(context.objects)
            started.set()
            log.info("service started", extra={"pid": os.getpid()})
            # nothing waits for the bus, because a service can work from the ledger alone
            group.create_task(listen())
            for task in parts.background:
                group.create_task(task())
            if runner:
                group.create_task(runner.run())

    serving, working = [asyncio.create_task(server.serve()) for server in servers], asyncio.create_task(main())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    try:
        await asyncio.wait({*serving, working}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        [outcome] = await cancel_and_wait(working)
        await context.bus.stop()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*serving, return_exceptions=True)
        if parts.close:
            await parts.close()
        log.info("service stopped", extra={"pid": os.getpid()})
    if isinstance(outcome, BaseExceptionGroup):
        raise _root_cause(outcome)


def faces(
    name: str,
    settings: Settings,
    parts: Parts,
    checks: dict[str, health.Check],
    measure: Callable[[], Awaitable[None]],
) -> list[tuple[FastAPI, tuple[str, int]]]:
    """The HTTP apps of a service, each with the address at which it is served: the public one, if it has one, and the
    private one, which alone tells metrics."""
    private = FastAPI(title=f"tunestream {name}", openapi_url=None)
    health.mount_metrics(private, measure)
    apps = [(private, (settings.health.host, settings.health.port))]
    if parts.app is not None and parts.address is not None:
        apps.insert(0, (parts.app, parts.address))
    for app, _ in apps:
        health.mount(app, checks)
        app.add_middleware(HttpMetrics)
    return apps


async def wait_for_store(objects: ObjectStore) -> None:
    """Return as soon as the object store answers.

    Raises:
        ConfigError: the store is up, but these settings do not lead to it.
    """
    await retry(
        objects.check,
        on=StoreUnavailable,
        pauses=STORE_PAUSES,
        failed=lambda: log.warning("the object store does not answer yet"),
    )


def _runner(name: str, context: Context, work: Work) -> StageRunner:
    stage = STAGES[name]  # type: ignore[index]  # a service with work has the name of its stage
    runner = StageRunner(
        stage,
        work,
        ledger=context.objects,
        bus=context.bus,
        leases=context.objects.for_leases(),
        owner=f"{socket.gethostname()}/{os.getpid()}/{ids.derive(time.time_ns(), chars=6)}",
        settings=context.settings.stage,
        span=telemetry.job_span,
    )
    metrics.watch_stage(
        name,
        pending=lambda: runner.pending,
        oldest=lambda: runner.oldest_pending,
        running=lambda: runner.working,
        waiting=lambda: runner.waiting,
        unpublished=lambda: runner.unpublished,
    )

    async def asked(event: Event, delivery: Delivery) -> None:
        # the dataset.uploaded of a stranger has no job yet: ingest makes one and publishes a complete event
        if getattr(event, "job_id", None) is not None:
            await runner.ask(event)

    async def control(event: JobControl, delivery: Delivery) -> None:
        runner.ring(event.job_id)

    context.bus.subscribe(stage.asked_by, asked)
    context.bus.subscribe(JobControl, control)
    return runner


def _root_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception of the task that failed first, because of which the others were cancelled."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: they would end the process before its leases are given back."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
