"""Turns Jaeger's flat list of spans into a tree that is read from top to bottom. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from cli.client import Json

MIN_RUN = 3
"""This many siblings of one name in a row, such as the questions of an evaluation, become one line."""
STARTED = ".started"


@dataclass(frozen=True)
class Node:
    """A span, or a run of `count` spans of one name. Times in seconds since the epoch; `ended` None: the span has not
    ended, or its process died. `error` is empty, or says in a word what went wrong."""

    name: str
    service: str
    began: float
    ended: float | None
    attempt: int = 1
    error: str = ""
    count: int = 1
    children: tuple[Node, ...] = ()

    @property
    def seconds(self) -> float | None:
        return None if self.ended is None else self.ended - self.began


def span_tree(trace: Json) -> list[Node]:
    """The roots of the tree. A span whose parent is missing (not exported, or another system's) is a root."""
    services = {key: process["serviceName"] for key, process in trace["processes"].items()}
    known = {span["spanID"] for span in trace["spans"]}
    below: dict[str, list[Json]] = defaultdict(list)
    for span in trace["spans"]:
        parent = _parent(span)
        below[parent if parent in known else ""].append(span)
    return _nodes(below, "", services)


def time_range(nodes: Iterable[Node]) -> tuple[float, float]:
    """When the first of the nodes and their children began, and when the last of them ended."""
    began, ended = [], []
    for node in nodes:
        began.append(node.began)
        ended.append(node.ended or node.began)
        if node.children:
            first, last = time_range(node.children)
            began.append(first)
            ended.append(last)
    return min(began), max(ended)


def _nodes(below: dict[str, list[Json]], parent: str, services: dict[str, str]) -> list[Node]:
    ordered = sorted(below[parent], key=lambda span: (span["startTime"], span["operationName"]))
    return _collapse_runs(
        [_merge_started(_node(span, services), _nodes(below, span["spanID"], services)) for span in ordered]
    )


def _node(span: Json, services: dict[str, str]) -> Node:
    tags = {tag["key"]: tag["value"] for tag in span.get("tags", ())}
    began = span["startTime"] / 1e6
    failed = tags.get("error") in (True, "true") or tags.get("otel.status_code") == "ERROR"
    return Node(
        name=span["operationName"],
        service=services.get(span["processID"], "?"),
        began=began,
        ended=began + span["duration"] / 1e6,
        attempt=_attempt(tags),
        error=str(tags.get("otel.status_description") or "error") if failed else "",
    )


def _merge_started(node: Node, children: Sequence[Node]) -> Node:
    """One node for `trainer.started`, the parent of an attempt's spans, and `trainer`, which says how it ended."""
    if not node.name.endswith(STARTED):
        return replace(node, children=tuple(children))
    name = node.name.removesuffix(STARTED)
    end = next((child for child in children if child.name == name), None)
    rest = tuple(child for child in children if child is not end)
    if end is None:
        return replace(node, name=name, ended=None, children=rest)
    return replace(node, name=name, ended=end.ended, error=end.error, children=rest)


def _collapse_runs(nodes: Sequence[Node]) -> list[Node]:
    """One node for every run of siblings of one name, from the beginning of the first to the end of the last."""
    collapsed: list[Node] = []
    for _, run in groupby(nodes, key=lambda node: (node.service, node.name, node.attempt)):
        members = list(run)
        if len(members) < MIN_RUN:
            collapsed += members
            continue
        began, ended = time_range(replace(member, children=()) for member in members)
        failed = [member.error for member in members if member.error]
        error = f"{len(failed)} with {failed[0]}" if failed else ""
        children = [child for member in members for child in member.children]
        children.sort(key=lambda child: (child.name, child.began))
        collapsed.append(
            replace(
                members[0],
                ended=ended,
                began=began,
                error=error,
                count=sum(member.count for member in members),
                children=tuple(_collapse_runs(children)),
            )
        )
    return collapsed


def _parent(span: Json) -> str:
    references: list[Json] = span.get("references") or []
    return next((str(one["spanID"]) for one in references if one.get("refType") == "CHILD_OF"), "")


def _attempt(tags: Json) -> int:
    number = str(tags.get("tunestream.attempt") or tags.get("tunestream.epoch"))  # older traces have the second name
    return int(number) if number.isdecimal() else 1
