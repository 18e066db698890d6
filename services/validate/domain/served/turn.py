"""A trained turn, as a server is asked about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer that is trained on. `message` is the answer as the row has it; of a completion row it has the
    completion as its content, and `messages` is empty. `prompt` and `answer` are the token ids of the training."""

    field: str
    """Where the row has the answer: `messages[2]`."""
    messages: Sequence[Mapping[str, Any]]
    """What comes before it, in the form in which it is sent."""
    tools: Sequence[Mapping[str, Any]] | None
    text: str | None
    """The prompt of a completion row; None: it is a chat."""
    message: Mapping[str, Any]
    prompt: list[int]
    answer: list[int]
    """It ends with the stop token, if the base has one."""
    stops: bool
    """The last token of the answer is one at which the server stops, so that it is no part of the message."""

    @property
    def said(self) -> list[int]:
        """The tokens of the message itself."""
        return self.answer[:-1] if self.stops else self.answer
