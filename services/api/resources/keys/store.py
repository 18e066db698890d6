"""Makes and revokes API keys in the ledger."""

from __future__ import annotations

import logging
import secrets

from pydantic import ValidationError

from services.api.resources.keys.domain import KeyBody, new_key
from services.api.resources.new_ids import new_id
from shared.access.keyring import Keyring, digest_of, secret_of
from shared.errors import Conflict, CorruptObject, TransientError
from shared.events import ApiKey
from shared.ids import is_key_id
from shared.stages.ledger import Ledger, api_key_key

log = logging.getLogger(__name__)

MAX_TRIES = 20  # nobody writes a key but to revoke it; so many lost races mean that the store is broken


async def create(body: KeyBody, project: str, by: str, keyring: Keyring, ledger: Ledger) -> tuple[ApiKey, str]:
    """Make a key. Returns its document, and its secret, which is kept nowhere. `project`, `by`: of the request.

    Raises:
        StoreUnavailable: the key may have been written; nobody has its secret.
    """
    key_id = new_id("key_")
    secret = secret_of(key_id, secrets.token_urlsafe(32))  # 43 characters
    key = new_key(body, key_id=key_id, sha256=digest_of(secret), project=project, at=ledger.now())
    etag = await ledger.create(api_key_key(key_id), key.model_dump_json().encode())
    keyring.note(key, etag)
    _audit("an API key was created", key, by)
    return key, secret


async def retrieve(key_id: str, ledger: Ledger) -> tuple[ApiKey, str] | None:
    """The document of a key as the store has it now, and its ETag; None: there is no such key.

    Raises:
        CorruptObject: it cannot be read.
    """
    found = await ledger.get(api_key_key(key_id)) if is_key_id(key_id) else None
    if found is None:
        return None
    try:
        return ApiKey.model_validate_json(found[0]), found[1]
    except ValidationError:
        raise CorruptObject(f"the document of the key {key_id} cannot be read") from None


async def revoke(key_id: str, by: str, keyring: Keyring, ledger: Ledger) -> ApiKey | None:
    """Revoke a key. Revoking it again changes nothing. None: there is no such key.

    Raises:
        TransientError: it may have been revoked or not.
    """
    for _ in range(MAX_TRIES):
        found = await retrieve(key_id, ledger)
        if found is None:
            return None
        key, etag = found
        if key.revoked_at is None:
            key = key.model_copy(update={"revoked_at": ledger.now()})
            try:
                etag = await ledger.replace(api_key_key(key_id), key.model_dump_json().encode(), etag)
            except Conflict:
                continue
            _audit("an API key was revoked", key, by)
        keyring.note(key, etag)
        return key
    raise TransientError(f"the key {key_id} could not be written: {MAX_TRIES} other writers were faster")


def _audit(what: str, key: ApiKey, by: str) -> None:
    log.info(what, extra={"key_id": key.id, "project": key.project, "by": by})
