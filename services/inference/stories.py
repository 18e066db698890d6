"""Which job's trace a request belongs to.

A job's story ends with the first request that its model answers after it was deployed: that request continues the
job's trace, unless it came with a trace of its own. All later ones only link to it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from services.inference.trained import TrainedModels

MOST_DEBUTS = 100


@dataclass(frozen=True)
class Story:
    """`traceparent` is that of the job that made the model, None for the base; `opens`: this is the model's first
    request since it was deployed."""

    traceparent: str | None = None
    opens: bool = False


class Stories:
    """Remembers in memory which deployed models nobody has asked yet. So after a restart, or where another replica did
    the deployment, a first request goes unnoticed: it has a trace of its own with a link, like any other."""

    def __init__(self, trained: TrainedModels) -> None:
        self._trained = trained
        self._debuts: OrderedDict[str, None] = OrderedDict()

    def deployed(self, model: str) -> None:
        """An alias has just moved to `model`."""
        self._debuts[model] = None
        if len(self._debuts) > MOST_DEBUTS:
            self._debuts.popitem(last=False)

    async def of(self, model: str, *, tuned: bool, asked_by: str | None) -> Story:
        """The story of a request for `model` that came with the traceparent `asked_by`. Never a reason to fail."""
        if not tuned:
            return Story()
        traceparent = await self._trained.traceparent(model)
        opens = asked_by is None and traceparent is not None and model in self._debuts
        if opens:
            del self._debuts[model]
        return Story(traceparent, opens)
