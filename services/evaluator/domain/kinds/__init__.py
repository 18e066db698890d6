"""What kind of task a dataset is: labels, structured output, SQL, tool calls, or free text. The kind decides what is
measured beside the text, and by what the gate decides."""

from __future__ import annotations

from typing import Any

from shared.events import FrozenModel

SHARE = 0.5
"""From this share of references on, a kind decides by what the gate judges."""


class Kinds(FrozenModel):
    """What the answers are measured as, beside text."""

    labels: bool = False
    calls: bool = False
    structured: bool = False
    sql: bool = False


class Task(FrozenModel):
    """What the references of an evaluation are. Shares are from 0 to 1."""

    labels: tuple[str, ...] | None = None
    """All labels, sorted; None: the answers are not labels."""
    calls: float = 0.0
    """The share of references that call a tool."""
    structured: float = 0.0
    """The share of references that are a JSON object or array."""
    sql: float = 0.0
    """The share of references that are SQL statements."""
    inferred: dict[str, Any] | None = None
    """The JSON schema that all structured references match; None: there are none."""

    @property
    def free_text(self) -> bool:
        """Whether the model is to write text, and not answers of one form only."""
        return self.labels is None and max(self.calls, self.structured, self.sql) < SHARE

    def kinds(self, metric: str) -> Kinds:
        """What is measured if the gate decides by `metric`."""
        return Kinds(
            labels=self.labels is not None or metric in ("accuracy", "macro_f1"),
            calls=self.calls > 0 or metric.startswith("tool_call_"),
            structured=self.structured > 0 or metric.startswith("json_"),
            sql=self.sql > 0 or metric.startswith("sql_"),
        )
