"""All trackers that the settings name, for one attempt at a training."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from services.trainer.engine.messages import AnyMessage, HyperparametersChosen, StepDone
from services.trainer.tracking.feed import Feed
from services.trainer.tracking.tracker import Outcome, Run, Tracker
from shared.errors import ConfigError, InputError
from shared.events import Job
from shared.events.limits import DEFAULT_PROJECT
from shared.settings import Settings, TrackingSettings
from shared.stages.stage import Attempt
from shared.telemetry import trace_link

END_SECONDS = 10.0
"""How long the end of an attempt waits for trackers that are not away."""

Make = Callable[[], Tracker]
CLASSES = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "WeightsAndBiases"}
"""By setting and module. The clients need not be installed for what is not set, so the modules are imported late."""


def check(tracking: TrackingSettings) -> None:
    """Refuse a setting that would have no effect.

    Raises:
        ConfigError: the client of a tracker is not installed, or the folder of TensorBoard cannot be written.
    """
    for name in CLASSES:
        if getattr(tracking, name) is None:
            continue
        try:
            # now, because it takes seconds, in which a service with a training would answer nothing
            _module(name)
        except ImportError as error:
            raise ConfigError(
                f"TUNESTREAM_TRACKING__{name.upper()} is set, but the client of {name} cannot be imported ({error}): "
                f"`pip install 'tunestream[{name}]'`, or leave the setting out"
            ) from None
    if tracking.tensorboard is not None:
        try:
            tracking.tensorboard.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"TUNESTREAM_TRACKING__TENSORBOARD: {tracking.tensorboard} cannot be made: {error.strerror}"
            ) from None


def makers(tracking: TrackingSettings) -> Mapping[str, Make]:
    """By name, what makes a run in each tracker that is set."""
    set_ = {name: getattr(tracking, name) for name in CLASSES}
    return {name: partial(_made, name, value) for name, value in set_.items() if value is not None}


def _made(name: str, value: Any) -> Tracker:
    tracker: Tracker = getattr(_module(name), CLASSES[name])(value)
    return tracker


def _module(name: str) -> ModuleType:
    return import_module(f"{__package__}.{name}")


class Trackers:
    """Tells the trackers of one attempt, from the messages of its training process. An async context manager: it ends
    with the attempt. Nothing in it raises, or waits for a tracker that is away."""

    def __init__(self, attempt: Attempt, settings: Settings, folder: Path, trackers: Mapping[str, Make]) -> None:
        """`folder`: of the attempt, on the local disk."""
        self._attempt = attempt
        self._settings = settings
        self._folder = folder
        self._feeds = [Feed(name, make) for name, make in trackers.items()]
        self._said: set[str] = set()

    async def hear(self, message: AnyMessage) -> None:
        """Pass on a message of the training process; tell the job of trackers that are away, each once."""
        if isinstance(message, HyperparametersChosen):
            await self._say_what_is_not_served()
            for feed in self._feeds:
                feed.begin(self._run(feed.name))
        elif isinstance(message, StepDone):
            for feed in self._feeds:
                feed.add(message)
        await self._warn()

    async def _say_what_is_not_served(self) -> None:
        job, served = self._attempt.job, {feed.name for feed in self._feeds}
        for each in job.spec.integrations if job.origin.kind != "api" else ():  # the api has said it
            if each.type not in served | self._said:
                self._said.add(each.type)
                message = f"warning: the integration {each.type} is not served here, so nothing is sent to it"
                await self._attempt.progress(message=message)

    async def _warn(self) -> None:
        for feed in self._feeds:
            if feed.trouble is not None and feed.name not in self._said:
                self._said.add(feed.name)
                message = f"warning: {feed.trouble}; the training goes on, and they are sent again later"
                await self._attempt.progress(message=message)

    def _run(self, name: str) -> Run:
        job = self._attempt.job
        run = Run(job.job_id, self._folder, facts=self._facts(job), parameters=self._parameters())
        if name == "mlflow" and job.project != DEFAULT_PROJECT:
            return replace(run, project=job.project)
        if name == "wandb" and (asked := next((each.wandb for each in job.spec.integrations), None)):
            return replace(run, project=asked.project, label=asked.name, entity=asked.entity, tags=asked.tags)
        return run

    def _facts(self, job: Job) -> dict[str, str]:
        facts = {"job": job.job_id, "base": job.base, "model": job.model, "project": job.project}
        if link := trace_link(self._settings.telemetry.jaeger_url, job.traceparent):
            facts["trace"] = link
        return facts

    def _parameters(self) -> dict[str, Any]:
        """The chosen hyperparameters; lists as text."""
        try:
            document = json.loads((self._folder / "out" / "hyperparameters.json").read_bytes())
        except (OSError, ValueError):
            return {}
        values = {name: each.get("value") for name, each in document.items() if isinstance(each, dict)}
        known = {name: value for name, value in values.items() if value is not None}
        return {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in known.items()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome: Outcome = "failed" if isinstance(error, InputError) else "interrupted" if error else "completed"
        for feed in self._feeds:
            feed.end(outcome)
        if error is None or isinstance(error, InputError):
            await asyncio.gather(*(asyncio.to_thread(feed.join, END_SECONDS) for feed in self._feeds))
            await self._warn()
