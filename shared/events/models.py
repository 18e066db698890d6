"""The two base classes of all events, documents and job settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """A frozen model. Unknown fields are ignored, because events evolve. Errors do not show inputs, which may be text
    of a user."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


class StrictModel(BaseModel):
    """A frozen model in which unknown fields are errors. It is for what a person writes: a misspelt field must not be
    ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )
