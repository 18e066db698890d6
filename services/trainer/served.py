"""What the trainer needs to know of the server: whether it serves the base, and which layers an adapter may change."""

from __future__ import annotations

from shared.base.profile import BaseProfile
from shared.errors import InputError


def served_linears(base: str, profile: BaseProfile | None) -> tuple[str, ...] | None:
    """The last names of the layers that an adapter may change; None: nobody has asked the server.

    Raises:
        InputError: `unsupported_base`: the server cannot serve the base, or no adapters on it.
    """
    server = profile.server if profile else None
    if server is None:
        return None
    if server.problem:
        raise InputError("unsupported_base", f"base model {base!r} cannot be tuned: {server.problem}", "model")
    return server.linears
