"""Dashboards and alerts ask only for what the services count, and the page about metrics says what the code says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.metrics import families
from shared.events import SERVICES

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
PROMETHEUS_OWN = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate"}}
VLLM = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:inter_token_latency_seconds_bucket",
}
OF_EVERY_TARGET = {"job", "instance"}

_STRING = re.compile(r'"[^"]*"')
_METRIC = re.compile(r"\b((?:tunestream_|vllm:)[a-z_]+|up\b|ALERTS\b)(\{[^}]*\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_BY = re.compile(r"\bby\s*\(([^)]*)\)")


def known() -> dict[str, set[str]]:
    """The labels of every metric that a scrape can return, by its name."""
    series: dict[str, set[str]] = {}
    for family in families():
        endings = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
        for ending in endings:
            series[family.name + ending] = set(family.labels) | ({"le"} if ending == "_bucket" else set())
    return series | PROMETHEUS_OWN


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard(path: Path) -> Any:
    return json.loads(path.read_text())


def expressions() -> Iterator[tuple[str, str]]:
    for path in DASHBOARDS:
        for panel in dashboard(path)["panels"]:
            yield from ((f"{path.stem}: {panel['title']}", target["expr"]) for target in panel.get("targets", ()))
    yield from ((f"alert {rule['alert']}", rule["expr"]) for rule in rules())


def problems(expression: str) -> Iterator[str]:
    series = known()
    labels = set(OF_EVERY_TARGET)
    for name, matchers in _METRIC.findall(_STRING.sub('""', expression)):
        if name in VLLM:
            labels.add("le")
            continue
        if name not in series:
            yield f"nothing counts {name}"
            continue
        labels |= series[name]
        wrong = set(_MATCHER.findall(matchers)) - series[name] - OF_EVERY_TARGET
        yield from (f"{name} has no label {label}" for label in sorted(wrong))
    for names in _BY.findall(expression):
        wrong = {label.strip() for label in names.split(",")} - labels
        yield from (f"nothing here has a label {label}" for label in sorted(wrong))


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_rules_and_dashboards_query_only_metrics_that_exist(where: str, expression: str) -> None:
    assert list(problems(expression)) == [], where


@pytest.mark.parametrize(
    "expression",
    [
        "tunestream_no_such_thing > 0",
        'tunestream_stage_pending{topic="x"}',
        "sum by (topic) (tunestream_stage_pending)",
        "tunestream_stage_seconds",
        "vllm:no_such_thing",
    ],
)
def test_a_query_of_an_unknown_metric_or_label_is_found(expression: str) -> None:
    assert list(problems(expression))


def test_every_metric_is_on_a_dashboard() -> None:
    asked = " ".join(expression for where, expression in expressions() if not where.startswith("alert"))
    assert [family.name for family in families() if family.name not in asked] == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_loads_without_input(path: Path) -> None:
    sources = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())
    provisioned = {source["uid"] for source in sources["datasources"]}
    board = dashboard(path)
    assert board["uid"] == f"tunestream-{path.stem}"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} <= provisioned


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["alert"]


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    document = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text())
    looks = [look for test in document["tests"] for look in test["promql_expr_test"]]
    firing = {re.findall(r'alertname="(\w+)"', sample["labels"])[0] for look in looks for sample in look["exp_samples"]}
    assert firing == {rule["alert"] for rule in rules()}


def test_every_service_is_scraped_under_its_own_name() -> None:
    document = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    targets = {
        config["job_name"]: config["static_configs"][0]["targets"]
        for config in document["scrape_configs"]
        if config["job_name"] in SERVICES
    }
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())
    for name in SERVICES:
        port = compose["services"][name]["environment"]["TUNESTREAM_HEALTH__PORT"]
        assert targets[name] == [f"{name}:{port}"]
        published = [each.rpartition(":")[2] for each in compose["services"][name].get("ports", [])]
        assert str(port) not in published, "metrics are for Prometheus alone"
