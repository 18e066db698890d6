"""API keys in a store, and their secrets."""

from __future__ import annotations

from typing import Any

from shared.access.keyring import digest_of, secret_of
from shared.events import ApiKey
from shared.stages.ledger import Ledger, api_key_key

RANDOM = "s" * 43


def id_of(name: str) -> str:
    """The id of the key with the letters `name`."""
    return f"key_{name:a<24}"


def secret(name: str) -> str:
    return secret_of(id_of(name), RANDOM)


def api_key(name: str, **more: Any) -> ApiKey:
    fields: dict[str, Any] = {"rights": ("train", "serve"), "created_at": 1.0, **more}
    return ApiKey(id=id_of(name), name=name, sha256=digest_of(secret(name)), **fields)


async def add_key(ledger: Ledger, name: str, **more: Any) -> str:
    """Write a key as another process would. Returns its secret."""
    key = api_key(name, **more)
    await ledger.create(api_key_key(key.id), key.model_dump_json().encode())
    return secret(name)


async def revoke_key(ledger: Ledger, name: str, at: float = 2.0) -> None:
    """Revoke a key as another process would."""
    found = await ledger.get(api_key_key(id_of(name)))
    assert found is not None
    key = ApiKey.model_validate_json(found[0]).model_copy(update={"revoked_at": at})
    await ledger.replace(api_key_key(key.id), key.model_dump_json().encode(), found[1])
