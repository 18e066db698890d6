"""The Prometheus metrics of ingest."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

sweeps = Counter(
    "tunestream_ingest_sweeps_total",
    "Listings of the whole bucket; outcome: completed, cut_short (store or bus were away)",
    ["outcome"],
)
taken = Counter(
    "tunestream_ingest_taken_total",
    "Datasets that were handled; kind: drop, event; outcome: job, refused (the object vanished or changed meanwhile)",
    ["kind", "outcome"],
)
notifications = Counter(
    "tunestream_ingest_notifications_total", "Bucket notifications; outcome: read, unreadable", ["outcome"]
)
seconds = Histogram(
    "tunestream_ingest_seconds",
    "From a dropped object's modification to its published event",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 21_600),
)
