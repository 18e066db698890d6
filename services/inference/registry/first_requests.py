"""Decides which trace a request for a tuned model belongs to.

The first request that a model answers after its deployment continues the trace of its job, unless the request came
with a trace of its own. All later requests only link to the job's trace.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from services.inference.registry.trained import TrainedModels
from shared import telemetry
from shared.single_flight import SingleFlight

MAX_WAITING = 100
MOST_TRACES = 10_000
ASK_AGAIN_SECONDS = 5.0
"""Between two questions to the store about the trace of one model, while it does not answer."""


@dataclass(frozen=True)
class JobTrace:
    """How a request is connected to the trace of the job that made its model.

    `traceparent` is the job's; None for the base, or where it is not known. `continued`: the request is the model's
    first one since its deployment, and continues the job's trace.
    """

    traceparent: str | None = None
    continued: bool = False


class FirstRequests:
    """Remembers, in memory, the deployed models that nobody has asked yet. After a restart, or if another replica made
    the deployment, a first request is treated like any other: it gets a trace of its own with a link."""

    def __init__(self, trained: TrainedModels, timer: Callable[[], float] = time.monotonic) -> None:
        """`timer`: seconds that only ever grow."""
        self._trained = trained
        self._timer = timer
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._traces: OrderedDict[str, str | None] = OrderedDict()
        """The traceparent of the job of each model that was asked for."""
        self._asked_at: dict[str, float] = {}
        self._lookups: SingleFlight[None] = SingleFlight()

    def deployed(self, model: str, traceparent: str | None) -> None:
        """Note that an alias has just moved to `model`, whose job has this traceparent."""
        self._learn(model, telemetry.valid_traceparent(traceparent))
        self._waiting[model] = None
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)

    async def job_trace(self, model: str, *, tuned: bool, asked_by: str | None) -> JobTrace:
        """The job's trace for a request for `model` that came with the traceparent `asked_by`.

        It waits for nothing: a trace that is not known yet is looked up for the next request.
        """
        if not tuned:
            return JobTrace()
        if model not in self._traces and self._timer() >= self._asked_at.get(model, float("-inf")):
            self._lookups.begin(model, lambda: self._look_up(model))
        traceparent = self._traces.get(model)
        continued = asked_by is None and traceparent is not None and model in self._waiting
        if continued:
            del self._waiting[model]
        return JobTrace(traceparent, continued)

    async def _look_up(self, model: str) -> None:
        self._asked_at[model] = self._timer() + ASK_AGAIN_SECONDS
        self._learn(model, await self._trained.traceparent(model))

    def _learn(self, model: str, traceparent: str | None) -> None:
        self._asked_at.pop(model, None)
        self._traces[model] = traceparent
        if len(self._traces) > MOST_TRACES:
            self._traces.popitem(last=False)
