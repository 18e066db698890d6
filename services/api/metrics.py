"""The Prometheus metrics of the api, beside those of its requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from prometheus_client import Gauge

from services.api.domain.state import Status

jobs = Gauge("tunestream_jobs", "Jobs by status, as the projection knows them", ["status"])


def set_jobs(counts: Mapping[str, int]) -> None:
    """Set `tunestream_jobs` to the number of jobs of each status; a status that `counts` lacks has none."""
    for status in get_args(Status):
        jobs.labels(status).set(counts.get(status, 0))
