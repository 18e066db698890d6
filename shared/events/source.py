"""How the rows of a table, or of another tool's file, become examples: a part of a job's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared.events.models import StrictModel

Column = Annotated[str, Field(min_length=1, max_length=256)]
Role = Literal["system", "user", "assistant", "tool"]
Target = Literal[
    "system",
    "user",
    "context",
    "assistant",
    "chosen",
    "rejected",
    "answer_a",
    "answer_b",
    "preferred",
    "messages",
    "role",
    "content",
]
"""What a column may hold: texts of a turn (`context` is added to what the user says), the two answers of a preference
pair (or two answers and which of them is `preferred`), whole conversations, or one message with its role."""


class Source(StrictModel):
    """How ingest reads a file that is not in a training format yet. Everything that is not set is found out."""

    columns: Annotated[
        dict[Target, Column | Annotated[tuple[Column, ...], Field(min_length=1, max_length=16)]], Field(max_length=12)
    ] = {}
    """Which column holds what, such as `user: customer_message`. Several columns are joined, with a blank line between
    them. A field of a nested object is written with dots, such as `ticket.body`."""
    roles: Annotated[dict[Annotated[str, Field(max_length=256)], Role], Field(max_length=256)] = {}
    """Who speaks, by the words of the file: `Kundin: user`."""
    filter: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    """Which rows are taken, such as `satisfaction_score >= 4 and language == "en"`."""
    system: Annotated[str, Field(min_length=1, max_length=32_768)] | None = None
    """The system prompt of examples that have none of their own."""
    group_by: Column | None = None
    """The column that says which rows are one conversation, such as `ticket_id`."""
    order_by: Column | None = None
    """The column that orders the rows of a conversation, such as `created_at`; otherwise the order of the file."""
    answers: Literal["join", "first", "last"] = "join"
    """What becomes of several answers in a row: one text, or only the first or the last of them."""
    metadata: Annotated[tuple[Column, ...], Field(max_length=16)] = ()
    """Columns that each example keeps in its `metadata`. Nothing is trained on them."""
    records: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Where the rows are in a JSON document, such as `data.tickets`."""
    sheet: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The name of a spreadsheet's sheet; otherwise the first with a header that is understood."""
    encoding: Annotated[str, Field(min_length=1, max_length=32)] | None = None
    """Such as `utf-8`, `utf-16` or `windows-1252`; otherwise it is found out."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Between the cells of a table; otherwise it is found out."""
