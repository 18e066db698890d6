"""Whether what is trained is what is served: the outcome of asking vLLM itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.events.limits import ITEMS, Count, Id, Text
from shared.events.models import FrozenModel


class Served(FrozenModel):
    """How the trained turns compare with what vLLM makes of the same requests and tokens. It holds no user text."""

    rows: Count = 0
    turns: Count = 0
    """Trained turns that were compared, of these rows."""
    differences: Count = 0
    server: Id | None = None
    """The version of vLLM that was asked; None: none answered."""
    template: Id | None = None
    """The first 12 hex digits of the SHA-256 of the base's chat template; None: it has none."""
    not_asked: Text | None = None
    """Why no turn was compared, or from some turn on none."""
    partly: Annotated[tuple[Text, ...], Field(max_length=ITEMS)] = ()
    """What could not be compared in some of the turns, and why."""
    probe: Id | None = None
    """A digest of the tokens that training makes of a fixed conversation, which inference compares with those of the
    server that has loaded the adapter; None: these tokens may change from day to day, or there is no chat template."""

    def __str__(self) -> str:
        """`2,214 turns compared with vLLM 0.32.0: 0 differences, template 3f2a91c07b1e`"""
        if not self.turns:
            return f"not compared with the server: {self.not_asked or 'there was nothing to compare'}"
        said = (
            f"{self.turns:,} turn{'' if self.turns == 1 else 's'} compared with vLLM {self.server}: "
            f"{self.differences:,} difference{'' if self.differences == 1 else 's'}"
        )
        if self.template:
            said += f", template {self.template}"
        notes = (f"the rest was not compared: {self.not_asked}",) if self.not_asked else ()
        return "; ".join((said, *notes, *self.partly))
