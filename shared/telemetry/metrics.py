"""The Prometheus metrics that all services have: of their stage, the bus, the object store and HTTP. Each service has
its own in its `metrics.py`; `docs/metrics.md` is generated from all of them.

Names are `tunestream_{what}_{unit}` in base units. Label values come from small, fixed sets, and are never ids, object
keys or text of a user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, TypeVar, get_args

from prometheus_client import Counter, Gauge, Histogram

from shared.events import StageOutcome

OUTCOMES = get_args(StageOutcome)
RETRIES = ("transient", "bug", "lease_lost")
CAUSES = ("transient", "configuration")

Labelled = TypeVar("Labelled", Counter, Gauge, Histogram)


def series(metric: Labelled, *labels: str) -> Labelled:
    """`metric.labels(*labels)`, for what every request counts: looking it up there costs as much as a request's JSON.
    It is only for metrics whose series are never removed."""
    found: Labelled = _series(metric, labels)
    return found


@lru_cache(4096)
def _series(metric: Any, labels: tuple[str, ...]) -> Any:
    return metric.labels(*labels)


# --- the stage protocol -------------------------------------------------------------------------------------------

stage_pending = Gauge(
    "tunestream_stage_pending",
    "Jobs that were asked for in this stage and have no result yet, as the ledger says; every replica sees all of them",
    ["stage"],
)
stage_oldest_pending_seconds = Gauge(
    "tunestream_stage_oldest_pending_seconds", "Time since the first of the pending jobs was asked for", ["stage"]
)
stage_waiting = Gauge(
    "tunestream_stage_waiting",
    "Pending jobs whose last attempt could not go on, and which are tried again later; cause: transient (something is "
    "away), configuration (a setting is wrong)",
    ["stage", "cause"],
)
stage_running = Gauge("tunestream_stage_running", "Attempts under way in this process", ["stage"])
stage_attempts = Counter("tunestream_stage_attempts_total", "Attempts begun", ["stage"])
stage_retries = Counter(
    "tunestream_stage_retries_total",
    "Attempts that must be repeated; reason: transient (something was away), bug, lease_lost",
    ["stage", "reason"],
)
stage_results = Counter(
    "tunestream_stage_results_total",
    "Results that this process decided; outcome: completed, failed, cancelled",
    ["stage", "outcome"],
)
stage_seconds = Histogram(
    "tunestream_stage_seconds",
    "Duration of the attempts that came to a result",
    ["stage", "outcome"],
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 10_800, 21_600, 43_200, 86_400),
)

outbox_waiting = Gauge(
    "tunestream_outbox_waiting", "Results of this process that are decided, and whose events the bus does not have yet"
)

# --- the bus ------------------------------------------------------------------------------------------------------

messages_consumed = Counter(
    "tunestream_messages_consumed_total", "Messages taken; outcome: handled, redelivered", ["topic", "outcome"]
)
messages_published = Counter("tunestream_messages_published_total", "Messages published", ["topic"])
dead_letters = Counter(
    "tunestream_dead_letters_total",
    "Messages of this topic put into its dead-letter topic; reason: the class of the exception",
    ["topic", "reason"],
)
consumer_lag = Gauge(
    "tunestream_consumer_lag", "Messages not yet taken from this process's partitions, as of the last fetch", ["topic"]
)

# --- the object store ---------------------------------------------------------------------------------------------

store_seconds = Histogram(
    "tunestream_store_seconds",
    "Duration of operations on the object store, the client's own retries included",
    ["operation"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300),
)
store_errors = Counter(
    "tunestream_store_errors_total", "Operations that the object store refused or did not answer", ["operation"]
)

# --- HTTP ---------------------------------------------------------------------------------------------------------

http_requests = Counter(
    "tunestream_http_requests_total", "HTTP requests answered; route: its template", ["method", "route", "status"]
)
http_seconds = Histogram(
    "tunestream_http_seconds",
    "Time until the last byte of an HTTP answer",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600),
)


def watch_stage(
    stage: str,
    *,
    pending: Callable[[], float],
    oldest: Callable[[], float],
    running: Callable[[], float],
    waiting: Callable[[], Mapping[str, int]] | None = None,
    unpublished: Callable[[], float] | None = None,
) -> None:
    """Measure a stage on every scrape, and create its counters now. Prometheus does not see the first increase of a
    counter that appears with that increase.

    `waiting`: jobs that wait now, by cause; a cause that it lacks has none. `unpublished`: results in the outbox.
    """
    stage_pending.labels(stage).set_function(pending)
    stage_oldest_pending_seconds.labels(stage).set_function(oldest)
    stage_running.labels(stage).set_function(running)
    if waiting is not None:
        for cause in CAUSES:
            stage_waiting.labels(stage, cause).set_function(partial(_of_cause, waiting, cause))
    if unpublished is not None:
        outbox_waiting.set_function(unpublished)
    stage_attempts.labels(stage)
    for reason in RETRIES:
        stage_retries.labels(stage, reason)
    for outcome in OUTCOMES:
        stage_results.labels(stage, outcome)


def _of_cause(waiting: Callable[[], Mapping[str, int]], cause: str) -> float:
    return waiting().get(cause, 0)
