"""The Prometheus metrics of the api, beside those of its requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from prometheus_client import Counter, Gauge

from services.api.domain.state import Status

jobs = Gauge("tunestream_jobs", "Jobs by status, as the projection knows them", ["status"])


def set_jobs(counts: Mapping[str, int]) -> None:
    """Set `tunestream_jobs` to the number of jobs of each status; a status that `counts` lacks has none."""
    for status in get_args(Status):
        jobs.labels(status).set(counts.get(status, 0))


deleted_objects = Counter(
    "tunestream_janitor_deleted_total",
    "Objects that the janitor has deleted; kind: checkpoints, tombstones, attempts, resume, reports, markers, inbox, "
    "quarantine, retries, webhooks (deliveries), files, uploads (in parts, also those that were never completed)",
    ["kind"],
)
deleted_bytes = Counter("tunestream_janitor_deleted_bytes_total", "The size of what the janitor has deleted", ["kind"])
tombstones_refused = Gauge(
    "tunestream_janitor_tombstones_refused", "Tombstones that stay, because they name what their kind may not name"
)
janitor_refused = Gauge(
    "tunestream_janitor_refused", "1: the object store refuses the janitor, so what nobody needs stays"
)
last_sweep = Gauge(
    "tunestream_janitor_last_sweep_seconds",
    "When the last sweep of the janitor began, in seconds since the epoch; 0: another replica is the janitor",
)
index_entries = Counter(
    "tunestream_janitor_index_entries_total", "Entries that the index of open work lacked, and that a sweep has written"
)
webhook_tries = Counter(
    "tunestream_webhook_tries_total",
    "Tries to deliver a webhook; outcome: sent (the receiver has taken it), failed (it is tried again, or given up), "
    "given_up (counted beside the last failure)",
    ["outcome"],
)
webhooks_waiting = Gauge(
    "tunestream_webhooks_waiting", "Webhooks that are not delivered yet; 0 also while another replica sends them"
)


def deleted(kind: str, size: int) -> None:
    """Count one object of `size` bytes that was deleted."""
    deleted_objects.labels(kind).inc()
    deleted_bytes.labels(kind).inc(size)
