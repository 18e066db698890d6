"""Tells others how far a synthesis is: `synthesis.progress`, now and then. Best effort, like all progress."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from services.ingest.domain.synthesis import results
from services.ingest.domain.synthesis.history import History
from services.ingest.domain.synthesis.spec import SynthesisSpec
from shared import ids
from shared.errors import ConfigError, EventRefused, TransientError
from shared.events import DatasetPointer, SynthesisProgress
from shared.stages.publisher import Publisher
from shared.tasks import in_background

log = logging.getLogger(__name__)

SECONDS = 10.0
"""Between two events."""
State = Literal["started", "running", "waiting", "completed", "failed"]


class Progress:
    """The progress of one version of one spec."""

    def __init__(self, bus: Publisher, bucket: str, key: str, etag: str) -> None:
        self._bus = bus
        self._spec = DatasetPointer(bucket=bucket, key=key)
        self._name = ids.derive("synthesis", bucket, key)
        self._etag = etag
        self._latest: tuple[SynthesisSpec, History] | None = None

    def keep(self, spec: SynthesisSpec) -> Callable[[History], None]:
        """What notes that a run has something to tell."""

        def note(history: History) -> None:
            self._latest = (spec, history)

        return note

    def _figures(self) -> dict[str, int | float | None]:
        if self._latest is None:
            return {}
        spec, history = self._latest
        used = history.used
        return {
            "made": results.made(spec, history),
            "wanted": spec.count,
            "refused": sum(history.reasons().values()),
            "tokens": used.tokens,
            "money": used.money if spec.prices else None,
        }

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Tell every few seconds while the block runs."""

        async def tell() -> None:
            told: dict[str, int | float | None] = {}
            while True:
                await asyncio.sleep(SECONDS)
                if told != (figures := self._figures()):
                    told = figures
                    await self.tell("running", "")

        async with in_background(tell()):
            yield

    async def tell(self, state: State, message: str, dataset: str | None = None) -> None:
        """Publish an event. Never raises because the bus is away."""
        figures = self._figures()
        event = SynthesisProgress.model_validate(
            {
                "spec": self._spec,
                "state": state,
                "message": message,
                "dataset": {"bucket": self._spec.bucket, "key": dataset} if dataset else None,
                **figures,
            }
        )
        ce_id = ids.event_id(self._name, event.topic, self._etag, state, message, figures)
        try:
            await self._bus.publish(event, ce_id=ce_id, subject=self._name)
        except (TransientError, ConfigError, EventRefused) as error:
            log.warning("progress is not told", extra={"reason": type(error).__name__})
