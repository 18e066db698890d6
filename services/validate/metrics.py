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


def count(report: Report) -> None:
    """Count the rows, bytes and problems of both files."""
    for file in filter(None, (report.training, report.validation)):
        rows.inc(file.rows)
        read_bytes.inc(file.size)
        for severity, counts in (("error", file.error_counts), ("warning", file.warning_counts)):
            for code, number in counts.items():
                problems.labels(code, severity).inc(number)
