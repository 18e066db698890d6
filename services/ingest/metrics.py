"""The Prometheus metrics of ingest."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

sweeps = Counter(
    "tunestream_ingest_sweeps_total",
    "Listings of the whole bucket; outcome: completed, cut_short (the listing failed, or the whole store)",
    ["outcome"],
)
taken = Counter(
    "tunestream_ingest_taken_total",
    "Datasets that were handled; kind: drop, event; outcome: job, refused (it is gone, or cannot become a job)",
    ["kind", "outcome"],
)
notifications = Counter(
    "tunestream_ingest_notifications_total", "Bucket notifications; outcome: read, unreadable", ["outcome"]
)
mined = Counter(
    "tunestream_ingest_mined_total",
    "Files that were not in a training format; outcome: what they were (pairs, messages, …), or refused",
    ["outcome"],
)
seconds = Histogram(
    "tunestream_ingest_seconds",
    "From a dropped object's modification to its job",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 21_600),
)
quarantined = Counter(
    "tunestream_ingest_quarantined_total",
    "Drops and events that were put into quarantine, see `tunestream quarantine`",
    ["kind"],
)
setbacks = Counter(
    "tunestream_ingest_setbacks_total",
    "Tries at one drop or event that failed, and are repeated later",
    ["kind", "reason"],
)
unpublished = Gauge("tunestream_ingest_unpublished", "Jobs whose first event is not known to be published yet")
