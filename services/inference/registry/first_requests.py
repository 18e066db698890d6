"""Decides which trace a request for a tuned model belongs to.

The first request that a model answers after its deployment continues the trace of its job, unless the request came
with a trace of its own. All later requests only link to the job's trace.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from services.inference.registry.trained import TrainedModels

MAX_WAITING = 100


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

    def __init__(self, trained: TrainedModels) -> None:
        self._trained = trained
        self._waiting: OrderedDict[str, None] = OrderedDict()

    def deployed(self, model: str) -> None:
        """Note that an alias has just moved to `model`."""
        self._waiting[model] = None
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)

    async def job_trace(self, model: str, *, tuned: bool, asked_by: str | None) -> JobTrace:
        """The job's trace for a request for `model` that came with the traceparent `asked_by`.

        It does not raise while the object store is away.
        """
        if not tuned:
            return JobTrace()
        traceparent = await self._trained.traceparent(model)
        continued = asked_by is None and traceparent is not None and model in self._waiting
        if continued:
            del self._waiting[model]
        return JobTrace(traceparent, continued)
