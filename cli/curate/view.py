"""How one row looks in the terminal: its messages, what the checks say, and what stands beside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from cli.curate.rows import Row
from cli.terminal import printable
from services.validate.domain.findings import Finding

MOST_CHARS = 4_000
"""Of one text. Longer ones are cut, and say so; the editor shows them whole."""
STYLES = {"system": "magenta", "developer": "magenta", "user": "cyan", "assistant": "green", "tool": "yellow"}
SHOWN = {"messages", "input", "preferred_completion", "non_preferred_completion", "prompt", "completion"}


def shown(row: Row) -> Group:
    """A whole row."""
    return Group(*_parts(row))


def _parts(row: Row) -> Iterator[RenderableType]:
    value = row.value
    if value is None:
        yield Panel(_cut(row.raw.decode("utf-8", "backslashreplace")), title="not a JSON object", border_style="red")
    else:
        yield from _messages(value.get("messages"))
        asked = value.get("input")
        yield from _messages(asked.get("messages") if isinstance(asked, dict) else None)
        yield from _messages(value.get("preferred_completion"), "preferred")
        yield from _messages(value.get("non_preferred_completion"), "not preferred")
        for name, role in (("prompt", "user"), ("completion", "assistant")):
            if name in value:
                yield _panel(value[name], name, STYLES[role])
        for name in sorted(value.keys() - SHOWN):
            yield Text(f"{printable(name)}: {_cut(_plain(value[name]))}", style="dim")
    for finding in row.findings:
        yield about(finding)


def about(finding: Finding) -> Text:
    """A finding in one line."""
    place = f"{finding.field}: " if finding.field else ""
    style = "red" if finding.severity == "error" else "yellow"
    return Text(printable(f"{finding.severity}: {place}{finding.message}; {finding.remedy}"), style=style)


def _messages(messages: Any, side: str = "") -> Iterator[Panel]:
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return
    for message in messages:
        if not isinstance(message, Mapping):
            yield _panel(message, "not a message", "red")
            continue
        role = str(message.get("role", "no role"))
        beside = {key: value for key, value in message.items() if key not in {"role", "content"}}
        title = ", ".join(part for part in (role, side, "not trained on" if message.get("weight") == 0 else "") if part)
        said = [_plain(message["content"])] if message.get("content") is not None else []
        said += [f"{key}: {_plain(value)}" for key, value in beside.items() if value is not None]
        yield _panel("\n".join(said), title, STYLES.get(role, "red"))


def _panel(value: Any, title: str, style: str) -> Panel:
    return Panel(_cut(_plain(value)), title=Text(printable(title)), title_align="left", border_style=style)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> Text:
    more = f" … and {len(text) - MOST_CHARS:,} more characters" if len(text) > MOST_CHARS else ""
    return Text(printable(text[:MOST_CHARS])).append(more, style="dim")
