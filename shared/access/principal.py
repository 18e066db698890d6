"""Whoever sent a request, as its API key tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from starlette.requests import HTTPConnection
from starlette.types import Scope

from shared.events.limits import DEFAULT_PROJECT

Right = Literal["train", "serve", "admin"]
"""`train`: files, jobs and their models. `serve`: generations, and the list of models. `admin`: all of that, keys and
deployments by hand, in every project."""
ALL_RIGHTS: frozenset[Right] = frozenset(get_args(Right))


@dataclass(frozen=True)
class Principal:
    """The sender of one request. It sees what belongs to its `project`, and nothing else."""

    key_id: str
    """`root`: a key of the settings, or no key where none is needed."""
    project: str = DEFAULT_PROJECT
    rights: frozenset[Right] = ALL_RIGHTS


def principal_of(request: HTTPConnection | Scope) -> Principal:
    """Who sent the request. `BearerAuth` has put it there."""
    scope = request.scope if isinstance(request, HTTPConnection) else request
    principal: Principal = scope["state"]["principal"]
    return principal
