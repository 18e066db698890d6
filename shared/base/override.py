"""What a user may set of a base's profile, where reading the base finds too little or something else is wanted."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from shared.base.profile import BaseProfile, Reasoning
from shared.events.models import StrictModel

_TAKEN = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)


class ProfileOverride(StrictModel):
    """The fields of the profile that can be set. A parser that is null is switched off."""

    reasoning: Reasoning | None = None
    reasoning_parser: str | None = None
    """A name of vLLM's `--reasoning-parser`; null: none is used."""
    tool_call_parser: str | None = None
    """A name of vLLM's `--tool-call-parser`; null: none is used, and requests with `tools` are refused."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """What the chat template is given beside messages and tools, such as `{"enable_thinking": false}`."""
    tokenizer_mode: str | None = Field(default=None, min_length=1)
    """vLLM's `--tokenizer-mode`."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if unknown := sorted(map(str, given.keys() - cls.model_fields.keys())):
            raise ValueError(f"{', '.join(unknown)} cannot be set; {', '.join(cls.model_fields)} can")
        return given

    @field_validator("reasoning_parser", "tool_call_parser")
    @classmethod
    def _named(cls, name: str | None) -> str | None:
        if name is not None and (not name or name.startswith("-") or not name.isprintable() or " " in name):
            raise ValueError("is not the name of a parser; null switches the parser off")
        return name

    @field_validator("chat_template_kwargs")
    @classmethod
    def _not_ours(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(_TAKEN & kwargs.keys()):
            raise ValueError(f"may not hold {', '.join(taken)}, which the services set themselves")
        return kwargs

    def given(self) -> dict[str, Any]:
        """What was set, and nothing else; a null stands for a parser that is switched off."""
        parsers = ("reasoning_parser", "tool_call_parser")
        named: dict[str, Any] = self.model_dump(mode="json", include=self.model_fields_set)
        return {name: value for name, value in named.items() if value is not None or name in parsers}

    def applied_to(self, profile: BaseProfile) -> BaseProfile:
        return profile.model_copy(update=self.given())
