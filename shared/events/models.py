"""The two base classes of all events, documents and job settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from shared.events.limits import DOCUMENT_CHARS


class FrozenModel(BaseModel):
    """A frozen model. Unknown fields are ignored, because events evolve. Errors do not show inputs, which may be text
    of a user. Every number is finite, and every string can be written in UTF-8: what is not becomes `null` in JSON, or
    cannot be written at all, and no service could read it back."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        str_max_length=DOCUMENT_CHARS,  # a string with any limit is also checked for halves of surrogate pairs
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
        allow_inf_nan=False,
        str_max_length=DOCUMENT_CHARS,  # a string with any limit is also checked for halves of surrogate pairs
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )
