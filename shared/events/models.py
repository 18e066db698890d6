"""The two bases of everything that is written down or sent."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """Frozen; unknown fields are ignored (events evolve); inputs are hidden in errors (they may hold user text)."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


class StrictModel(BaseModel):
    """Frozen, and unknown fields are errors: for what a person writes, where a misspelt field must not pass."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )
