"""What a difference is, and the comparison of two prompts, token by token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.validate.domain.findings import Finding, short

SHOWN = 20  # characters of a token

_ALIKE = (
    "let the render server, the model server and the training have the same base and chat template, or set "
    "TUNESTREAM_RENDER__POLICY=warn to train all the same"
)


@dataclass(frozen=True, slots=True)
class Given:
    """What the server made of the tokens of an answer. `calls` are pairs of a name and arguments as JSON text."""

    content: str
    reasoning: str | None
    calls: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the server's view of a turn is not that of the row. The texts quote no text of a user."""

    field: str
    message: str
    remedy: str = _ALIKE

    def finding(self) -> Finding:
        return Finding(CODE, self.field, self.message, self.remedy)


CODE = "not_as_served"


def prompt_difference(
    field: str, ours: Sequence[int], served: Sequence[int], named: Callable[[int], str]
) -> Difference | None:
    """The first token at which two prompts differ; None: they are the same. `named` makes a token fit for a message."""
    if list(ours) == list(served):
        return None
    place = next((i for i, (a, b) in enumerate(zip(ours, served, strict=False)) if a != b), min(len(ours), len(served)))
    theirs, own = (named(ids[place]) if place < len(ids) else "its end" for ids in (served, ours))
    return Difference(
        field,
        f"the server's prompt for this answer is another than the one that is trained: at token {place} the server has "
        f"{theirs}, the training has {own} ({len(served)} and {len(ours)} tokens)",
    )


def token_name(piece: str, added: bool, row: Any) -> str:
    """A token for a message: its text, unless that may be text of the row."""
    bare = piece.strip()
    if not added and (("\ufffd" in piece) or (bare and bare.casefold() in _texts(row).casefold())):
        return "other text"
    return f"'{short(piece, SHOWN)}'"


def _texts(value: Any) -> str:
    """All texts within a JSON value."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n".join((*map(str, value), *map(_texts, value.values())))
    if isinstance(value, list | tuple):
        return "\n".join(map(_texts, value))
    return "" if value is None else str(value)
