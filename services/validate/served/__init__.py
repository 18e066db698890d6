"""Asks vLLM's render server what it makes of the requests and the answers that are trained."""

from __future__ import annotations

from services.validate.served.asking import File, ask

__all__ = ["File", "ask"]
