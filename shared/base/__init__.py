"""What is known of a base model, read once and used by all who train it, judge it or count its tokens.

`reading` and `making` need transformers, `ledger` the object store's documents; a process imports what it uses.
"""

from __future__ import annotations

from shared.base.override import ProfileOverride
from shared.base.profile import Attention, BaseProfile, Knows, Reasoning, ServerFacts
from shared.base.stops import stop_ids

__all__ = ["Attention", "BaseProfile", "Knows", "ProfileOverride", "Reasoning", "ServerFacts", "stop_ids"]
