"""What ingest counts, for /metrics."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

sweeps = Counter(
    "tunestream_ingest_sweeps_total",
    "Looks at the whole bucket; outcome: completed, cut_short (something was away)",
    ["outcome"],
)
taken = Counter(
    "tunestream_ingest_taken_total",
    "What was dealt with; kind: drop, event; outcome: job, refused (it vanished or changed meanwhile)",
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
