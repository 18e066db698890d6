"""One meaning of a row: what is sent to the server for it, what its chat template is given, and what is trained."""

from __future__ import annotations

from shared.conversation.content_format import content_format
from shared.conversation.probe import PROBE, digest_of
from shared.conversation.sent import TEMPLATE_FIELDS, sent_messages, sent_tools, text_of
from shared.conversation.template import ChatTemplate, Unfit
from shared.conversation.turns import TurnEncoder, Turns

__all__ = [
    "PROBE",
    "TEMPLATE_FIELDS",
    "ChatTemplate",
    "TurnEncoder",
    "Turns",
    "Unfit",
    "content_format",
    "digest_of",
    "sent_messages",
    "sent_tools",
    "text_of",
]
