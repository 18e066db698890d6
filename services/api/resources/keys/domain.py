"""What a client sends to make an API key, and a key as the JSON object that the API answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from services.api.resources.lists import whole_seconds
from shared.events import ApiKey, KeyLimits, StrictModel
from shared.events.limits import Limit, ProjectId

RightName = Literal["train", "serve", "admin"]


class LimitsBody(StrictModel):
    """Those of `KeyLimits`."""

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_open_jobs: Limit | None = None


class KeyBody(StrictModel):
    """A key to make. `project` None: that of the request."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    project: ProjectId | None = None
    rights: Annotated[tuple[RightName, ...], Field(min_length=1, max_length=3)] = ("train", "serve")
    limits: LimitsBody = LimitsBody()


def new_key(body: KeyBody, *, key_id: str, sha256: str, project: str, at: float) -> ApiKey:
    """The document of a new key. `project`: that of the request."""
    return ApiKey(
        id=key_id,
        name=body.name,
        sha256=sha256,
        project=body.project or project,
        rights=tuple(sorted(set(body.rights))),
        limits=KeyLimits.model_validate(body.limits.model_dump()),
        created_at=at,
    )


def key_view(key: ApiKey) -> dict[str, Any]:
    """Without the secret, which nobody has, and without its digest, which nobody needs."""
    return {
        "id": key.id,
        "object": "api_key",
        "name": key.name,
        "project": key.project,
        "rights": list(key.rights),
        "limits": key.limits.model_dump(),
        "created_at": whole_seconds(key.created_at),
        "revoked_at": None if key.revoked_at is None else whole_seconds(key.revoked_at),
    }
