"""Conversations as chat templates expect them, so that the validator, the trainer and vLLM see the same text."""

from __future__ import annotations

from shared.conversation.template import (
    SAID,
    template_messages,
    template_tools,
    text_of,
)

__all__ = [
    "SAID",
    "template_messages",
    "template_tools",
    "text_of",
]
