"""The Prometheus metrics of validate."""

from __future__ import annotations

from prometheus_client import Counter

from services.validate.domain.report import Report

rows = Counter("tunestream_validation_rows_total", "Rows checked")
read_bytes = Counter("tunestream_validation_bytes_total", "Bytes of the files checked")
problems = Counter(
    "tunestream_validation_problems_total",
    "Problems found; code: as in the report; severity: error, warning",
    ["code", "severity"],
)
compared_turns = Counter(
    "tunestream_validation_compared_turns_total",
    "Trained turns compared with what vLLM's render server makes of them; result: same, different",
    ["result"],
)


def count(report: Report) -> None:
    """Count the rows, bytes and problems of both files, and the turns that were compared with the server."""
    if report.served is not None:
        compared_turns.labels("different").inc(report.served.differences)
        compared_turns.labels("same").inc(report.served.turns - report.served.differences)
    for file in filter(None, (report.training, report.validation)):
        rows.inc(file.rows)
        read_bytes.inc(file.size)
        for severity, counts in (("error", file.error_counts), ("warning", file.warning_counts)):
            for code, number in counts.items():
                problems.labels(code, severity).inc(number)
