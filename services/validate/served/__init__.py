"""Asks vLLM's render server what it makes of the requests and the answers that are trained."""

from __future__ import annotations

from services.validate.served.asking import File, ask, not_asked
from services.validate.served.presence import QUICK, Presence

__all__ = ["QUICK", "File", "Presence", "ask", "not_asked"]
