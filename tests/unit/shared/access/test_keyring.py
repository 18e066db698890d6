"""Which API keys pass, while they are made and revoked elsewhere, and while the store errs or hangs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from shared.access.keyring import (
    FRESH_SECONDS,
    OLDEST_SECONDS,
    PATIENCE_SECONDS,
    RETRY_SECONDS,
    ROOT,
    UNKNOWN_AT_ONCE,
    UNKNOWN_PER_SECOND,
    Holder,
    Keyring,
)
from shared.errors import ConfigError, StoreRefused, StoreUnavailable
from shared.stages.ledger import KEYS, api_key_key
from tests.support.data.keys import add_key, api_key, id_of, revoke_key, secret
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until


class Store(FakeStore):
    """A store of which calls can hang, or fail with an error."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.answers.set()
        self.error: Exception | None = None
        self.refused: dict[str, Exception] = {}
        """The error of reading a key."""

    async def before(self, operation: str, key: str) -> None:
        await super().before(operation, key)
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        if operation == "get" and key in self.refused:
            raise self.refused[key]


class Process:
    """A process with its keys, and a clock of its own."""

    def __init__(self, store: Store, *roots: str) -> None:
        self.store, self.clock = store, Clock(1000.0)
        self.keys = Keyring(store, roots, self.clock, self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.clock.now += seconds

    async def passes(self, secret: str) -> bool:
        found = await self.keys.find(secret.encode())
        return found is not None and not found.revoked

    async def asked(self, secret: str) -> Holder | None:
        return await self.keys.find(secret.encode())

    async def settled(self) -> None:
        """Wait for the look that is under way."""
        await until(lambda: self.keys._looks.get(KEYS) is None, "the look to end")

    async def later(self, seconds: float, step: float = 0.25) -> AsyncIterator[float]:
        """Let time pass, in steps. Yields how much has passed."""
        start = self.clock.now
        while self.clock.now < start + seconds:
            self.clock.now += step
            for _ in range(20):
                await asyncio.sleep(0)  # tasks run while time passes
            yield self.clock.now - start


def letters(number: int) -> str:
    """A name for a made-up key, another one for each number."""
    return f"x{number:05}".translate(str.maketrans("0123456789", "abcdefghij"))


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    made = Store()
    yield made
    made.answers.set()


@pytest.fixture
def process(store: Store) -> Process:
    return Process(store, "root one", "root two")


# --- what passes ------------------------------------------------------------------------------------------------------


async def test_a_key_tells_its_project_rights_and_limits(store: Store, process: Process) -> None:
    await add_key(store, "b", project="p", rights=("serve", "of-the-future"), limits={"max_open_jobs": 3})

    found = await process.asked(secret("b"))

    assert found is not None and not found.revoked
    assert (found.principal.key_id, found.principal.project) == (id_of("b"), "p")
    assert found.principal.rights == {"serve"}, "a right that this version does not know gives nothing"
    assert found.limits.max_open_jobs == 3


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "x",
        secret("c"),
        secret("b")[:-1],
        secret("b")[:-1] + "S",
        secret("b") + "s",
        secret("b").upper(),
        secret("b") + "\n",
        secret("b").replace("sk-ts-", "sk-"),
        "sk-ts-../../jobs/x-" + "s" * 43,
        "roöt",
    ],
)
async def test_what_is_no_key_does_not_pass(store: Store, process: Process, wrong: str) -> None:
    await add_key(store, "b")
    assert await process.asked(wrong) is None


async def test_keys_of_the_settings_are_root_and_need_no_store(store: Store, process: Process) -> None:
    store.answers.clear()
    assert await process.asked("root one") is await process.asked("root two") is ROOT
    assert store.calls == []


async def test_a_document_that_cannot_be_read_lets_nobody_pass_and_hides_no_other(
    store: Store, process: Process
) -> None:
    for name in "bcde":
        await add_key(store, name)
    store.add(api_key_key(id_of("b")), b"{")
    store.add(api_key_key(id_of("c")), store.held[api_key_key(id_of("d"))].data)  # a copy under another id
    store.refused[api_key_key(id_of("d"))] = StoreRefused("InvalidObjectState", "it is archived")

    assert [await process.passes(secret(name)) for name in "bcde"] == [False, False, False, True]
    assert [await process.passes(secret(name)) for name in "bcde"] == [False, False, False, True]
    assert not await process.keys.is_open()


async def test_a_known_key_that_cannot_be_read_any_more_is_refused_and_others_are_still_revoked(
    store: Store, process: Process
) -> None:
    await add_key(store, "b")
    await add_key(store, "c")
    assert await process.passes(secret("b")) and await process.passes(secret("c"))
    store.add(api_key_key(id_of("b")), b"\xff")
    await revoke_key(store, "c")
    process.clock.now += 5

    assert not await process.passes(secret("b")) and not await process.passes(secret("c"))


async def test_what_is_no_key_below_keys_is_left_alone(store: Store, process: Process) -> None:
    for name in ("", "notes.txt", "key_x.json", f"old/{id_of('b')}.json"):
        store.add(KEYS + name, b"{}")
    assert await Process(store).keys.is_open()
    await add_key(store, "b")
    assert await process.passes(secret("b"))
    assert [key for name, key in store.calls if name == "get"] == [api_key_key(id_of("b"))]


async def test_limits_that_an_operator_has_changed_by_hand_count(store: Store, process: Process) -> None:
    await add_key(store, "b", limits={"requests_per_minute": 1})
    before = await process.asked(secret("b"))
    changed = api_key("b", limits={"requests_per_minute": 2})
    store.add(api_key_key(changed.id), changed.model_dump_json().encode())
    process.clock.now += 5
    after = await process.asked(secret("b"))
    assert before is not None and after is not None and after.limiter is not before.limiter
    assert after.limits.requests_per_minute == 2


# --- made and revoked elsewhere ---------------------------------------------------------------------------------------


async def test_a_key_that_was_just_made_elsewhere_passes_at_once(store: Store, process: Process) -> None:
    await add_key(store, "b")
    assert await process.passes(secret("b"))
    await add_key(store, "c")
    assert await process.passes(secret("c"))


@pytest.mark.parametrize("offset", [0.0, 1.0, 2.75, 3.0, 3.25, 4.0])
async def test_a_key_is_refused_within_five_seconds_after_it_was_revoked(
    store: Store, process: Process, offset: float
) -> None:
    """Requests come all the time; the revocation comes `offset` after a look."""
    await add_key(store, "b")
    assert await process.passes(secret("b"))
    async for _ in process.later(offset):
        assert await process.passes(secret("b"))
    await revoke_key(store, "b")

    last = 0.0
    async for passed in process.later(10):
        if await process.passes(secret("b")):
            last = passed
    assert last < 5
    found = await process.asked(secret("b"))
    assert found is not None and found.revoked, "whoever has the secret is told so"


@pytest.mark.parametrize("idle", [5.0, 3600.0])
async def test_after_a_pause_no_request_passes_on_what_was_known_before(
    store: Store, process: Process, idle: float
) -> None:
    await add_key(store, "b")
    assert await process.passes(secret("b"))
    await revoke_key(store, "b")
    process.clock.now += idle
    assert not any(await asyncio.gather(*[process.passes(secret("b")) for _ in range(20)]))


async def test_a_key_that_this_process_revoked_is_refused_at_once_and_not_revived(
    store: Store, process: Process
) -> None:
    await add_key(store, "b")
    assert await process.passes(secret("b"))
    process.keys.note(api_key("b", revoked_at=2.0), "new")
    assert not await process.passes(secret("b"))
    process.clock.now += 5  # the look reads the document of a store that lags behind
    assert not await process.passes(secret("b"))


async def test_a_key_that_somebody_has_deleted_by_hand_does_not_pass(store: Store, process: Process) -> None:
    await add_key(store, "b")
    assert await process.passes(secret("b"))
    del store.held[api_key_key(id_of("b"))]
    process.clock.now += 5
    assert not await process.passes(secret("b"))


# --- what the store is asked ------------------------------------------------------------------------------------------


async def test_without_requests_and_for_roots_nothing_is_asked(store: Store, process: Process) -> None:
    await add_key(store, "b")
    store.calls.clear()
    process.clock.now += 3600
    assert await process.asked("root one") is ROOT and await process.asked("x") is None
    assert store.calls == []


async def test_many_requests_ask_once_in_three_seconds_and_read_only_what_changed(
    store: Store, process: Process
) -> None:
    for name in "bcd":
        await add_key(store, name)
    await asyncio.gather(*[process.passes(secret(name)) for name in "bcd" * 10])
    store.calls.clear()
    await revoke_key(store, "c")
    store.calls.clear()
    async for _ in process.later(60):
        await asyncio.gather(*[process.passes(secret(name)) for name in "bcd" * 3])
        await process.settled()

    assert [call for call in store.calls if call[0] == "get"] == [("get", api_key_key(id_of("c")))]
    assert len(store.calls) <= 60 / FRESH_SECONDS + 2


async def test_made_up_keys_are_refused_without_asking_the_store_for_each(store: Store, process: Process) -> None:
    await add_key(store, "b")
    assert await process.passes(secret("b"))
    store.calls.clear()
    began = process.clock.now
    for second in range(20):
        made_up = [secret(letters(second * 100 + number)) for number in range(100)]
        assert await asyncio.gather(*map(process.asked, made_up)) == [None] * 100
        process.clock.now += 0.5
    seconds = process.clock.now - began
    assert 10 <= seconds <= 30
    gets = [call for call in store.calls if call[0] == "get"]
    assert len(gets) <= UNKNOWN_AT_ONCE + seconds * UNKNOWN_PER_SECOND
    assert len(store.calls) - len(gets) <= seconds * (1 + 1 / FRESH_SECONDS) + 1


async def test_the_same_made_up_key_is_looked_up_once_a_second(store: Store, process: Process) -> None:
    for _ in range(100):
        assert await process.asked(secret("b")) is None
    assert len([call for call in store.calls if call[0] == "get"]) == 1


async def test_amid_made_up_keys_a_new_key_passes(store: Store, process: Process) -> None:
    await asyncio.gather(*[process.asked(secret("x" * number)) for number in range(1, 24)])
    process.clock.now += 0.5
    await add_key(store, "b")
    made_up = [process.asked(secret("y" * number)) for number in range(1, 24)]
    *refused, passed = await asyncio.gather(*made_up, process.asked(secret("b")))
    assert refused == [None] * 23
    assert passed is not None


# --- the store is away ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ConfigError("denied"), StoreRefused("X", "x")])
async def test_while_the_store_errs_what_is_known_passes_and_what_is_not_gets_503(
    store: Store, process: Process, error: Exception
) -> None:
    await add_key(store, "b")
    assert await process.passes(secret("b"))
    await revoke_key(store, "b")
    await add_key(store, "c")
    store.error = error
    store.calls.clear()
    async for _ in process.later(3600, step=1.0):
        assert await process.passes(secret("b"))
    assert len(store.calls) <= 3600 / RETRY_SECONDS + 2, "it is asked again and again, but not for each request"
    if isinstance(error, StoreRefused):  # of this object, as far as anybody knows
        assert await process.asked(secret("c")) is None
    else:
        with pytest.raises(StoreUnavailable):
            await process.asked(secret("c"))

    store.error = None
    process.clock.now += RETRY_SECONDS
    assert not await process.passes(secret("b")), "nobody passes on what is old when the store is back"
    assert await process.passes(secret("c"))


async def test_a_store_that_hangs_delays_requests_for_a_moment_only(store: Store, process: Process) -> None:
    await add_key(store, "b")
    assert await process.passes(secret("b"))
    store.answers.clear()
    process.clock.now += OLDEST_SECONDS + 1
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert all(await asyncio.gather(*[process.passes(secret("b")) for _ in range(50)]))
    waited = loop.time() - began
    assert PATIENCE_SECONDS * 0.9 <= waited < PATIENCE_SECONDS + 1
    process.clock.now += PATIENCE_SECONDS
    assert all([await process.passes(secret("b")) for _ in range(50)])
    assert loop.time() - began - waited < PATIENCE_SECONDS, "nobody waits for it once more"


async def test_right_after_a_start_without_the_store_only_roots_pass(store: Store, process: Process) -> None:
    await add_key(store, "b")
    store.available = False
    assert await process.asked("root one") is ROOT
    for name in "bc":
        with pytest.raises(StoreUnavailable):
            await process.asked(secret(name))
    assert await process.asked("no key at all") is None

    store.available = True
    process.clock.now += RETRY_SECONDS
    assert await process.passes(secret("b"))


async def test_a_flood_right_after_a_start_without_the_store_does_not_hammer_it(store: Store, process: Process) -> None:
    store.available = False
    for number in range(500):
        with pytest.raises(StoreUnavailable):
            await process.asked(secret(letters(number)))
    assert len(store.calls) <= UNKNOWN_AT_ONCE + 2


# --- open access ------------------------------------------------------------------------------------------------------


async def test_access_is_open_only_where_there_never_was_a_key(store: Store) -> None:
    assert not await Process(store, "root").keys.is_open()
    process = Process(store)
    assert await process.keys.is_open()

    await add_key(store, "b")
    process.clock.now += 5
    assert not await process.keys.is_open(), "it was made elsewhere"
    await revoke_key(store, "b")
    process.clock.now += 5
    assert not await process.keys.is_open() and not await Process(store).keys.is_open()


async def test_the_first_key_closes_the_door_at_once_where_it_is_made(store: Store) -> None:
    process = Process(store)
    assert await process.keys.is_open()
    process.keys.note(api_key("b"), "e")
    assert not await process.keys.is_open()


async def test_open_access_outlasts_the_store_but_does_not_begin_without_it(store: Store) -> None:
    process = Process(store)
    store.available = False
    with pytest.raises(StoreUnavailable):
        await process.keys.is_open()
    store.available = True
    process.clock.now += RETRY_SECONDS
    assert await process.keys.is_open()
    store.available = False
    process.clock.now += 3600
    assert await process.keys.is_open()


# --- what is stored ---------------------------------------------------------------------------------------------------


async def test_the_store_holds_the_digest_and_not_the_secret(store: Store) -> None:
    await add_key(store, "b")
    document = json.loads(store.held[api_key_key(id_of("b"))].data)
    assert len(document["sha256"]) == 64
    assert "s" * 43 not in json.dumps(document)
