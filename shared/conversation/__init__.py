"""Converts conversations to what chat templates expect, so that the validator, the trainer and vLLM see the same
text."""

from __future__ import annotations

from shared.conversation.template import (
    TEMPLATE_FIELDS,
    template_messages,
    template_tools,
    text_of,
)

__all__ = [
    "TEMPLATE_FIELDS",
    "template_messages",
    "template_tools",
    "text_of",
]
