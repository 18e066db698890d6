"""Reads the metrics from the modules that define them, for `docs/metrics.md` and for tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from prometheus_client.metrics import MetricWrapperBase

MODULES = {
    "All services": "shared.telemetry.metrics",
    "ingest": "services.ingest.metrics",
    "validate": "services.validate.metrics",
    "trainer": "services.trainer.metrics",
    "evaluator": "services.evaluator.metrics",
    "inference": "services.inference.metrics",
    "api": "services.api.metrics",
}


@dataclass(frozen=True)
class Family:
    """One metric. `owner`: the service that has it, or `All services`; `kind`: counter, gauge or histogram."""

    owner: str
    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


def families() -> Iterator[Family]:
    """All metrics, in the order of their definition."""
    for owner, module in MODULES.items():
        for metric in vars(import_module(module)).values():
            if isinstance(metric, MetricWrapperBase):
                [described] = metric.describe()
                name = described.name + ("_total" if described.type == "counter" else "")
                # the client has no public name for the labels of a metric
                yield Family(owner, name, described.type, tuple(metric._labelnames), described.documentation)


def page() -> str:
    """`docs/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "Every service answers `/metrics` in Prometheus' format, at its private address (`TUNESTREAM_HEALTH__HOST` and",
        "`PORT`), without a key. Prometheus' own label `job` tells the services apart. This page is generated from the",
        "code (`make docs`).",
    ]
    owner = None
    for family in families():
        if family.owner != owner:
            owner = family.owner
            lines += ["", f"## {owner}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{family.name}` | {family.kind} | {labels} | {family.help} |")
    return "\n".join(lines) + "\n"
