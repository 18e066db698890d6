"""A job's trace as a story: from Jaeger's spans to a tree that is read from top to bottom. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from cli.client import Json

FEWEST_ALIKE = 3
"""So many siblings of one name, such as the questions of an evaluation, are told in one line."""
STARTED = ".started"


@dataclass(frozen=True)
class Chapter:
    """A span, or several that are alike (`count`). Times in seconds since the epoch; `ended` None: it has not ended, or
    died. `trouble` is empty, or says in a word what went wrong."""

    name: str
    service: str
    began: float
    ended: float | None
    attempt: int = 1
    trouble: str = ""
    count: int = 1
    children: tuple[Chapter, ...] = ()

    @property
    def seconds(self) -> float | None:
        return None if self.ended is None else self.ended - self.began


def story(trace: Json) -> list[Chapter]:
    """The outermost chapters. A span whose parent is not there (it was not exported, or is a stranger's) is one."""
    services = {key: process["serviceName"] for key, process in trace["processes"].items()}
    known = {span["spanID"] for span in trace["spans"]}
    below: dict[str, list[Json]] = defaultdict(list)
    for span in trace["spans"]:
        parent = _parent(span)
        below[parent if parent in known else ""].append(span)
    return _chapters(below, "", services)


def whole(chapters: Iterable[Chapter]) -> tuple[float, float]:
    """When the first of them began and the last one ended."""
    began, ended = [], []
    for chapter in chapters:
        began.append(chapter.began)
        ended.append(chapter.ended or chapter.began)
        if chapter.children:
            first, last = whole(chapter.children)
            began.append(first)
            ended.append(last)
    return min(began), max(ended)


def _chapters(below: dict[str, list[Json]], parent: str, services: dict[str, str]) -> list[Chapter]:
    ordered = sorted(below[parent], key=lambda span: (span["startTime"], span["operationName"]))
    return _alike([_folded(_chapter(span, services), _chapters(below, span["spanID"], services)) for span in ordered])


def _chapter(span: Json, services: dict[str, str]) -> Chapter:
    tags = {tag["key"]: tag["value"] for tag in span.get("tags", ())}
    began = span["startTime"] / 1e6
    failed = tags.get("error") in (True, "true") or tags.get("otel.status_code") == "ERROR"
    return Chapter(
        name=span["operationName"],
        service=services.get(span["processID"], "?"),
        began=began,
        ended=began + span["duration"] / 1e6,
        attempt=int(tags.get("tunestream.attempt") or tags.get("tunestream.epoch", 1)),  # older traces
        trouble=str(tags.get("otel.status_description") or "error") if failed else "",
    )


def _folded(chapter: Chapter, children: Sequence[Chapter]) -> Chapter:
    """`trainer.started`, on which an attempt's spans hang, and `trainer`, which tells how it ended, are one chapter."""
    if not chapter.name.endswith(STARTED):
        return replace(chapter, children=tuple(children))
    name = chapter.name.removesuffix(STARTED)
    end = next((child for child in children if child.name == name), None)
    rest = tuple(child for child in children if child is not end)
    if end is None:
        return replace(chapter, name=name, ended=None, children=rest)
    return replace(chapter, name=name, ended=end.ended, trouble=end.trouble, children=rest)


def _alike(chapters: Sequence[Chapter]) -> list[Chapter]:
    """Runs of siblings of one name in one line, from the beginning of the first to the end of the last."""
    told: list[Chapter] = []
    for _, run in groupby(chapters, key=lambda chapter: (chapter.service, chapter.name, chapter.attempt)):
        members = list(run)
        if len(members) < FEWEST_ALIKE:
            told += members
            continue
        began, ended = whole(replace(member, children=()) for member in members)
        failed = [member.trouble for member in members if member.trouble]
        trouble = f"{len(failed)} with {failed[0]}" if failed else ""
        children = [child for member in members for child in member.children]
        children.sort(key=lambda child: (child.name, child.began))
        told.append(
            replace(
                members[0],
                ended=ended,
                began=began,
                trouble=trouble,
                count=sum(member.count for member in members),
                children=tuple(_alike(children)),
            )
        )
    return told


def _parent(span: Json) -> str:
    references: list[Json] = span.get("references") or []
    return next((str(one["spanID"]) for one in references if one["refType"] == "CHILD_OF"), "")
