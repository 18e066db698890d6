"""The metrics of a service, as Prometheus reads them from /metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from shared.http import health


class Scrape:
    """One scrape. Counters live longer than a test, so a test compares two scrapes with `since`."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The value of a sample; 0 if there is no such sample."""
        return self._samples.get((name, frozenset(labels.items())), 0.0)

    def since(self, before: Scrape) -> Callable[..., float]:
        """A function with the arguments of `value` that tells how much a value has grown since an earlier scrape."""
        return lambda name, **labels: self.value(name, **labels) - before.value(name, **labels)

    def has(self, name: str, **labels: str) -> bool:
        return (name, frozenset(labels.items())) in self._samples

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of every sample of this name."""
        return [dict(labels) for found, labels in self._samples if found == name]


async def scrape(app: FastAPI | None = None, measure: Callable[[], Awaitable[None]] | None = None) -> Scrape:
    """Scrape `app`. Without one, scrape an app that has nothing else."""
    if app is None:
        app = FastAPI()
        health.mount_metrics(app, measure)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.test") as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    return Scrape(answer.text)
