"""What is known of a base model, read once and used by all who train it, judge it or count its tokens."""

from __future__ import annotations

from shared.base.profile import Attention, BaseProfile, Knows, ServerFacts
from shared.base.stops import stop_ids

__all__ = ["Attention", "BaseProfile", "Knows", "ServerFacts", "stop_ids"]
