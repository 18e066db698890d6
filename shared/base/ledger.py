"""Reads and writes the profiles of bases, `bases/{digest}.json`."""

from __future__ import annotations

from typing import Protocol

from shared.base.profile import BaseProfile
from shared.errors import AlreadyExists, Conflict, TransientError
from shared.stages.ledger import Ledger, base_key

_MAX_TRIES = 20  # a lost race means that another writer succeeded; so many in a row mean that the store is broken


class Reader(Protocol):
    """What reading needs of a ledger."""

    async def get(self, key: str) -> tuple[bytes, str] | None: ...


async def load(ledger: Reader, digest: str) -> BaseProfile | None:
    """The profile with this digest; None: nobody has stored one."""
    found = await ledger.get(base_key(digest))
    return BaseProfile.model_validate_json(found[0]) if found else None


async def save(ledger: Ledger, profile: BaseProfile) -> BaseProfile:
    """Store a profile, and return the one that is stored then.

    The first writer creates it. A later one replaces it only if it brings other facts of vLLM: nobody without such
    facts removes those of another.

    Raises:
        TransientError: other writers were always faster.
    """
    key, data = base_key(profile.digest), profile.model_dump_json().encode()
    for _ in range(_MAX_TRIES):
        found = await ledger.get(key)
        try:
            if found is None:
                await ledger.create(key, data)
                return profile
            stored = BaseProfile.model_validate_json(found[0])
            if profile.server in (None, stored.server):
                return stored
            await ledger.replace(key, data, found[1])
            return profile
        except (AlreadyExists, Conflict):
            continue
    raise TransientError(f"the profile of the base could not be written: {_MAX_TRIES} other writers were faster")
