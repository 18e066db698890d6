"""The API keys, in memory.

Keys of the settings are root: they have all rights, in any project. All others are documents below `keys/`. They are
read at once at the first request, and from then on whenever a request comes and the last look at the store is some
seconds old; the ETags of a listing tell what changed. Without requests nothing is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.requests import HTTPConnection

from shared.access.principal import ALL_RIGHTS, Principal
from shared.access.rate_limits import Bucket, RateLimiter
from shared.errors import ConfigError, StoreRefused, StoreUnavailable
from shared.events import ApiKey, KeyLimits
from shared.ids import is_key_id
from shared.lookups import LOOKUP_SECONDS, Missing, answer
from shared.single_flight import SingleFlight
from shared.stages.ledger import KEYS, Ledger, api_key_key

log = logging.getLogger(__name__)

FRESH_SECONDS = 3.0
"""A look at the store is younger, or another one begins."""
OLDEST_SECONDS = 4.0
"""No request passes on an older look, if the store answers. So a key is refused five seconds after it was revoked."""
PATIENCE_SECONDS = 0.5
"""How long a request waits for a look. A store that is well answers within milliseconds."""
RETRY_SECONDS = 1.0
"""After a look without an answer the next one begins so much later."""
UNKNOWN_PER_SECOND, UNKNOWN_AT_ONCE = 2, 20
"""How many keys that no look has shown are looked up. Anyone can make such keys up, each another one."""
READS = 8
"""Documents that are read at a time."""

UNLIMITED = KeyLimits()
_SECRET = re.compile(rb"sk-ts-([a-z2-7]{24})-[A-Za-z0-9_-]{43}")


def secret_of(key_id: str, random: str) -> str:
    """The secret of the key `key_id`. `random`: 43 characters of `secrets.token_urlsafe(32)`."""
    return f"sk-ts-{key_id.removeprefix('key_')}-{random}"


def digest_of(secret: str) -> str:
    """The SHA-256 of a secret, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Holder:
    """Whoever holds a key: what the key allows. `limiter` None: without limits."""

    principal: Principal
    limits: KeyLimits = UNLIMITED
    limiter: RateLimiter | None = None
    revoked: bool = False


ROOT = Holder(Principal("root"))


def limits_of(request: HTTPConnection) -> KeyLimits:
    """The limits of the key that sent a request. `max_open_jobs` is for the route that makes jobs to keep."""
    holder: Holder = request.scope["state"]["holder"]
    return holder.limits


@dataclass(frozen=True, slots=True)
class _Known:
    """A document that was read. `key` None: it cannot be read, so nobody may use the key."""

    etag: str
    key: ApiKey | None
    holder: Holder | None
    digest: bytes
    at: float


class Keyring:
    """The keys that one process knows. While the store errs or hangs, what it said last counts, for as long as that
    takes; where it has said nothing yet, only the keys of the settings are known."""

    def __init__(
        self,
        ledger: Ledger,
        roots: tuple[str, ...] = (),
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`timer`: seconds that only ever grow; `sleep` waits for some of them."""
        self._ledger = ledger
        self._roots = tuple(root.encode() for root in roots)
        self._timer = timer
        self._sleep = sleep
        self._known: dict[str, _Known] = {}
        self._listed: frozenset[str] = frozenset()
        """The ids that the last look has shown, also those that are not read yet."""
        self._looked: float | None = None
        """When the last look began that came to its end."""
        self._begun = self._not_before = float("-inf")
        self._exists = False
        """There is a key, or there was one."""
        self._away = False
        self._looks: SingleFlight[None] = SingleFlight()
        self._soon: SingleFlight[None] = SingleFlight()
        self._lookups: SingleFlight[None] = SingleFlight()
        self._missing = Missing(timer)
        self._unknown = Bucket(UNKNOWN_PER_SECOND * 60, timer(), UNKNOWN_AT_ONCE)

    # --- for requests -----------------------------------------------------------------------------------------

    async def find(self, secret: bytes) -> Holder | None:
        """The holder of `secret`, which may be revoked; None: it is no key.

        Raises:
            StoreUnavailable: it is not known here, and the store does not answer.
        """
        # all are compared, each in constant time, so that the time taken tells nothing about any of them
        matches = [hmac.compare_digest(secret, root) for root in self._roots]
        if any(matches):
            return ROOT
        form = _SECRET.fullmatch(secret)
        if form is None:
            return None
        key_id = f"key_{form[1].decode()}"
        if self._looked is None or self._timer() - self._looked > FRESH_SECONDS:
            await self._refresh()
        known = self._known.get(key_id) or await self._find_unknown(key_id)
        if known is None or not hmac.compare_digest(hashlib.sha256(secret).digest(), known.digest):
            return None
        return known.holder

    async def is_open(self) -> bool:
        """Whether no key is needed: there is none in the settings, and there never was another.

        Raises:
            StoreUnavailable: nothing is known yet, and the store does not answer.
        """
        if self._roots or self._exists:
            return False
        if self._looked is None or self._timer() - self._looked > FRESH_SECONDS:
            await self._refresh()
        if self._looked is None and not self._exists:
            raise StoreUnavailable("it is not known yet whether there are API keys")
        return not self._exists

    # --- for administration -----------------------------------------------------------------------------------

    async def all(self) -> list[ApiKey]:
        """Every key whose document can be read, revoked ones too, newest first, as the store has them now.

        Raises:
            StoreUnavailable: it cannot be asked.
        """
        await self._look()
        keys = [known.key for known in self._known.values() if known.key is not None]
        return sorted(keys, key=lambda key: (key.created_at, key.id), reverse=True)

    async def has_admin(self) -> bool:
        """Whether anybody may make keys: a key of the settings, or one with the right `admin` that is not revoked.

        Raises:
            StoreUnavailable: it cannot be asked.
        """
        return bool(self._roots) or any("admin" in key.rights and key.revoked_at is None for key in await self.all())

    def note(self, key: ApiKey, etag: str) -> None:
        """This process has written `key`: here it counts from now on."""
        self._exists = True
        self._take(key.id, etag, key)

    # --- looking ----------------------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        """Begin a look, if none is under way, and wait for it if what is known is too old. Whatever becomes of it, the
        request goes on with what is known then."""
        now = self._timer()
        task = self._looks.get(KEYS)
        if task is None:
            if now < self._not_before:
                return
            self._begun = now
            task = self._looks.begin(KEYS, self._look)
        if self._looked is not None and now - self._looked <= OLDEST_SECONDS:
            return
        # counted from when it was needed, so that a look that hangs delays requests for a moment only
        until = self._begun + LOOKUP_SECONDS
        if self._looked is not None:
            until = max(self._begun, self._looked + OLDEST_SECONDS) + PATIENCE_SECONDS
        if until > now:
            await asyncio.wait({task}, timeout=until - now)

    async def _look(self) -> None:
        began = self._timer()
        try:
            listed = {_id_of(entry.key): entry.etag for entry in await self._ledger.list(KEYS)}
            entries = {key_id: etag for key_id, etag in listed.items() if is_key_id(key_id)}
            self._exists = self._exists or bool(entries)
            self._listed = frozenset(entries)
            changed = [key_id for key_id, etag in entries.items() if not self._has(key_id, etag)]
            # those that are in use first: one of them may be revoked
            await self._read_all(sorted(changed, key=lambda key_id: key_id not in self._known))
        except Exception as error:
            self._not_before = self._timer() + RETRY_SECONDS
            if not self._away:
                # the line of a ConfigError names the setting that is wrong
                reason = str(error) if isinstance(error, ConfigError) else type(error).__name__
                log.warning("the API keys may be old: they cannot be read", extra={"reason": reason})
            self._away = True
            raise
        for key_id in [key_id for key_id, known in self._known.items() if known.at < began and key_id not in entries]:
            del self._known[key_id]  # somebody has deleted it by hand
        self._looked, self._away = max(began, self._looked or began), False  # a later one may have ended before it

    async def _read_all(self, key_ids: list[str]) -> None:
        for start in range(0, len(key_ids), READS):
            outcomes = await asyncio.gather(
                *(self._read(key_id) for key_id in key_ids[start : start + READS]), return_exceptions=True
            )
            for error in outcomes:
                if error is not None:
                    raise error

    async def _read(self, key_id: str) -> None:
        """Read one document. One that cannot be read lets nobody pass, and keeps no other from being read."""
        try:
            found = await self._ledger.get(api_key_key(key_id))
            if found is None:
                self._missing.add(key_id)
                return
            self._exists = True
            key = ApiKey.model_validate_json(found[0])
            self._take(key_id, found[1], key if key.id == key_id else None)
        except (ValidationError, StoreRefused) as error:
            if (before := self._known.get(key_id)) is None or before.key is not None:
                reason = type(error).__name__
                log.error("an API key cannot be read, so it is refused", extra={"key_id": key_id, "reason": reason})
            self._take(key_id, found[1] if isinstance(error, ValidationError) and found else "", None)

    def _has(self, key_id: str, etag: str) -> bool:
        known = self._known.get(key_id)
        return known is not None and known.etag == etag

    def _take(self, key_id: str, etag: str, key: ApiKey | None) -> None:
        before = self._known.get(key_id)
        if before is not None and before.key is not None and before.key.revoked_at is not None:
            key = before.key  # an older answer, which comes late, does not revive it
        holder, digest = None, b""
        if key is not None:
            if before is not None and before.holder is not None and before.holder.limits == key.limits:
                limiter = before.holder.limiter  # what was used was used
            else:
                limited = key.limits.requests_per_minute is not None or key.limits.tokens_per_minute is not None
                limiter = RateLimiter(key.limits, self._timer()) if limited else None
            rights = frozenset(right for right in ALL_RIGHTS if right in key.rights)
            principal = Principal(key.id, key.project, rights)
            holder = Holder(principal, key.limits, limiter, revoked=key.revoked_at is not None)
            digest = bytes.fromhex(key.sha256)
        self._known[key_id] = _Known(etag, key, holder, digest, self._timer())

    # --- keys that are not known ------------------------------------------------------------------------------

    async def _find_unknown(self, key_id: str) -> _Known | None:
        """Look a key up that may be new.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        if key_id in self._missing:
            return None
        if key_id in self._listed or self._unknown.take(self._timer()):
            task = self._lookups.begin(key_id, lambda: self._read(key_id))
        else:  # too many unknown keys come: one list for all of them tells which are new
            task = self._soon.begin(KEYS, self._look_soon)
        try:
            await answer(task, LOOKUP_SECONDS)
        except StoreUnavailable:
            raise
        except Exception as error:  # the store refuses us, and its reason is none of the client's business
            raise StoreUnavailable("the API keys cannot be read") from error
        return self._known.get(key_id)

    async def _look_soon(self) -> None:
        """Look again, but not more than once a second."""
        now = self._timer()
        if now < self._not_before:
            raise StoreUnavailable("the API keys could not be read a moment ago")
        last = self._looked if self._looked is not None else float("-inf")
        await self._sleep(min(1.0, max(0.0, last + 1.0 - now)))
        await self._looks.begin(KEYS, self._look)


def _id_of(key: str) -> str:
    return key.removeprefix(KEYS).removesuffix(".json")
