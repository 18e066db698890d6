"""A project is told of the ends of its jobs: signed, at least once, whatever is away or restarted in between."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from services.api.webhooks import sender as module
from shared.errors import ConfigError
from shared.retry import Backoff
from shared.tasks import in_background
from tests.support.fakes.servers import refusing_port
from tests.support.scrape import scrape
from tests.support.waiting import until
from tests.unit.api.webhooks.world import CANCELLED, FAILED, HOUR, SUCCEEDED, Receiver, Replica, World

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AWAY_PAUSES", Backoff(0.01, 0.01))


def states(world: World) -> list[str]:
    return [delivery["state"] for delivery in deliveries(world)]


def deliveries(world: World) -> list[dict[str, Any]]:
    held = world.store.held
    return [json.loads(held[key].data) for key in sorted(held) if key.startswith("webhooks/deliveries/")]


@pytest.mark.parametrize(
    ("how", "event_type"), [("succeeded", SUCCEEDED), ("failed", FAILED), ("cancelled", CANCELLED)]
)
async def test_the_official_client_verifies_what_is_sent(
    world: World, api: Replica, receiver: Receiver, how: str, event_type: str
) -> None:
    endpoint = await world.endpoint(api, receiver)
    job = await world.end(1, how)
    await api.round()
    (got,) = receiver.got
    event = api.client().webhooks.unwrap(got.body, got.headers, secret=endpoint.signing_secret)
    assert (event.type, event.object, event.data.id) == (event_type, "event", job)  # type: ignore[union-attr]
    assert event.created_at == int(world.clock.now)
    assert event.id == got.headers["webhook-id"]
    assert got.headers["content-type"] == "application/json"
    assert got.headers["host"] == receiver.server.url.removeprefix("http://")
    with pytest.raises(openai.InvalidWebhookSignatureError):
        api.client().webhooks.unwrap(got.body + b" ", got.headers, secret=endpoint.signing_secret)
    await api.round()
    assert len(receiver.got) == 1
    assert states(world) == ["delivered"]


async def test_it_is_sent_again_until_it_is_taken_and_each_time_with_the_same_id(
    world: World, api: Replica, receiver: Receiver
) -> None:
    await world.endpoint(api, receiver)
    await world.end(1)
    receiver.status = 500
    await api.round()
    await api.round()  # not due yet
    assert len(receiver.got) == 1
    for tries in range(2, 6):
        world.clock.now += 10.0 * 2 ** (tries - 2)
        await api.round()
        assert len(receiver.got) == tries
    receiver.status = 200
    world.clock.now += HOUR
    await api.round()
    world.clock.now += HOUR
    await api.round()
    assert len(receiver.got) == 6
    assert len(set(receiver.ids)) == 1
    assert len({got.body for got in receiver.got}) == 1
    assert len({got.headers["webhook-timestamp"] for got in receiver.got}) == 6


async def test_after_three_days_it_is_given_up_with_a_line_in_the_log(
    world: World, api: Replica, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    await world.endpoint(api, receiver)
    await world.end(1)
    receiver.status = 503
    for _ in range(100):
        await api.round()
        world.clock.now += HOUR
    assert 72 <= len(receiver.got) <= 74
    (delivery,) = deliveries(world)
    assert (delivery["state"], delivery["answer"], delivery["problem"]) == ("given_up", 503, "it answered 503")
    assert len([line for line in caplog.records if "given up" in line.message]) == 1


async def test_a_receiver_that_was_away_for_hours_is_told_when_it_is_back(world: World, api: Replica) -> None:
    with refusing_port() as port:
        url = f"http://127.0.0.1:{port}/"
        endpoint = await api.client().webhooks.create(name="ours", url=url, event_types=[SUCCEEDED])
        for number in range(3):
            await world.end(number)
        for _ in range(10):
            await api.round()
            world.clock.now += HOUR
        assert {delivery["problem"] for delivery in deliveries(world)} == {"no connection"}
    back = await world.receiver()
    await api.client().webhooks.update(endpoint.id, url=back.url)
    await api.round()
    assert len(back.got) == 3
    assert states(world) == ["delivered"] * 3


@pytest.mark.parametrize("status", [301, 302, 307, 308, 404, 410])
async def test_no_redirect_is_followed_and_only_2xx_counts(
    world: World, api: Replica, receiver: Receiver, status: int
) -> None:
    await world.endpoint(api, receiver)
    await world.end(1)
    receiver.status = status
    await api.round()
    assert (len(receiver.got), receiver.elsewhere) == (1, 0)
    assert states(world) == ["waiting"]


async def test_a_slow_receiver_holds_up_no_other_one(world: World) -> None:
    world.limit_seconds = 0.5
    api, slow, quick = await world.replica(), await world.receiver(), await world.receiver()
    await world.endpoint(api, slow)
    await world.endpoint(api, quick)
    slow.free.clear()
    await world.end(1)
    await api.projection.reconcile()
    await api.sender.round(_certain)
    await until(lambda: slow.got and quick.got, "both are asked")
    await until(lambda: "delivered" in states(world), "one has taken it")
    assert sorted(states(world)) == ["delivered", "waiting"]
    await world.end(2)
    await api.projection.reconcile()
    await api.sender.round(_certain)
    await until(lambda: len(quick.got) == 2, "the next one comes")
    await api.sender.sent()
    assert "no answer within 0.5 seconds" in {delivery["problem"] for delivery in deliveries(world)}
    slow.free.set()


async def _certain() -> None: ...


# --- who is told what -------------------------------------------------------------------------------------------------


async def test_a_project_hears_of_its_own_jobs_alone(world: World, api: Replica) -> None:
    ours, theirs = await world.receiver(), await world.receiver()
    await world.endpoint(api, ours, project="ours")
    await world.endpoint(api, theirs, project="theirs")
    job = await world.end(1, project="ours")
    await world.end(2, project="default")
    await api.round()
    assert [json.loads(got.body)["data"]["id"] for got in ours.got] == [job]
    assert not theirs.got


async def test_only_what_is_subscribed_is_sent_and_only_from_then_on(
    world: World, api: Replica, receiver: Receiver
) -> None:
    await world.end(1, "failed")
    endpoint = await world.endpoint(api, receiver, SUCCEEDED)
    await world.end(2, "failed")
    await api.round()
    world.clock.now += 60
    await api.client().webhooks.update(endpoint.id, event_types=[FAILED])
    restarted = await world.replica()
    await restarted.round()
    assert not receiver.got
    job = await world.end(3, "failed")
    await world.end(4, "succeeded")
    await restarted.round()
    assert [json.loads(got.body)["data"]["id"] for got in receiver.got] == [job]


async def test_a_deleted_endpoint_hears_nothing_even_of_what_it_has_missed(
    world: World, api: Replica, receiver: Receiver
) -> None:
    endpoint = await world.endpoint(api, receiver)
    receiver.status = 500
    await world.end(1)
    await api.round()
    await api.client().webhooks.delete(endpoint.id)
    world.clock.now += HOUR
    await world.end(2)
    await api.round()
    await (await world.replica()).round()
    assert len(receiver.got) == 1


async def test_a_new_secret_counts_at_once_and_the_old_one_for_a_day_if_asked(
    world: World, api: Replica, receiver: Receiver
) -> None:
    hooks = api.client().webhooks
    first = await world.endpoint(api, receiver)
    second = await hooks.rotate_secret(first.id)
    third = await hooks.rotate_secret(first.id, keep_old_secret_active_for_24_hours=True)
    await world.end(1)
    await api.round()
    got = receiver.got[0]
    for known in (second, third):
        hooks.unwrap(got.body, got.headers, secret=known.signing_secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        hooks.unwrap(got.body, got.headers, secret=first.signing_secret)
    world.clock.now += 25 * HOUR
    await world.end(2)
    await api.round()
    late = receiver.got[1]
    hooks.verify_signature(late.body, late.headers, secret=third.signing_secret, tolerance=10**6)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        hooks.verify_signature(late.body, late.headers, secret=second.signing_secret, tolerance=10**6)


# --- restarts and replicas --------------------------------------------------------------------------------------------


async def test_a_restart_between_the_end_and_the_delivery_loses_nothing_and_repeats_nothing(
    world: World, api: Replica, receiver: Receiver
) -> None:
    await world.endpoint(api, receiver)
    first = await world.end(1)
    await api.round()
    second = await world.end(2)  # nobody is there to see it
    restarted = await world.replica()
    await restarted.round()
    third = await world.end(3)
    receiver.status = 500
    await restarted.round()
    receiver.status = 200
    world.clock.now += 20 * HOUR
    await (await world.replica()).round()
    told = [json.loads(got.body)["data"]["id"] for got in receiver.got]
    assert told == [first, second, third, third]
    assert states(world) == ["delivered"] * 3


async def test_what_was_taken_is_not_sent_again_because_the_store_was_away(
    world: World, api: Replica, receiver: Receiver
) -> None:
    await world.endpoint(api, receiver)
    await world.end(1)
    receiver.free.clear()
    await api.projection.reconcile()
    await api.sender.round(_certain)
    await until(lambda: receiver.got, "it is sent")
    world.store.available = False
    receiver.free.set()
    calls = len(world.store.calls)
    await until(lambda: len(world.store.calls) > calls + 5, "it tries to write that")
    world.store.available = True
    await api.sender.sent()
    await api.round()
    assert len(receiver.got) == 1
    assert states(world) == ["delivered"]


async def test_what_ended_more_than_a_week_ago_is_not_told(world: World, api: Replica, receiver: Receiver) -> None:
    await world.endpoint(api, receiver)
    await world.end(1)
    world.clock.now += 8 * 24 * HOUR
    await api.round()
    assert not receiver.got
    assert not deliveries(world)


async def test_of_two_replicas_one_sends_and_the_other_follows(world: World, receiver: Receiver) -> None:
    one, two = await world.replica("one"), await world.replica("two")
    world_claim = lambda: json.loads(world.store.held["webhooks/claim.json"].data)  # noqa: E731
    async with in_background(one.sender.run()) as first:
        await world.endpoint(one, receiver)
        await until(lambda: "webhooks/claim.json" in world.store.held, "the first one sends")
        async with in_background(two.sender.run()):
            await world.end(1)
            await asyncio.gather(one.projection.reconcile(), two.projection.reconcile())
            await until(lambda: states(world) == ["delivered"], "it is sent")
            assert world_claim()["owner"] == "one"
            first.cancel()
            await until(lambda: world_claim()["owner"] == "two", "the second one follows")
            await world.end(2)
            await two.projection.reconcile()
            await until(lambda: states(world) == ["delivered"] * 2, "it is sent, too")
    assert len(receiver.got) == 2
    assert world_claim()["given_back"]


@pytest.mark.parametrize("answers", [[204, 204], [500, 204], [204, 500]])
async def test_one_that_sends_although_another_one_has_taken_over_does_no_harm(
    world: World, receiver: Receiver, answers: list[int]
) -> None:
    old, new = await world.replica("old"), await world.replica("new")
    await world.endpoint(old, receiver)
    for replica in (old, new):
        await replica.round()
    await world.end(1)
    await new.round()
    world.clock.now += 1
    await old.round()  # it has not heard of the delivery
    assert len(receiver.got) == 1
    await world.end(2)
    receiver.free.clear()
    receiver.first = list(answers)
    both = [asyncio.create_task(replica.round()) for replica in (old, new)]
    await until(lambda: len(receiver.got) == 3, "both send")
    receiver.free.set()
    await asyncio.gather(*both)
    assert states(world) == ["delivered"] * 2
    for _ in range(3):  # one that was refused may try once more, then it hears of the other one's success
        world.clock.now += HOUR
        for replica in (old, new):
            await replica.round()
    assert states(world) == ["delivered"] * 2
    assert len(receiver.got) == (4 if answers[0] == 500 else 3)
    assert len(set(receiver.ids)) == 2


# --- what it costs, and what goes wrong -------------------------------------------------------------------------------


async def test_while_nothing_happens_the_store_is_not_asked(world: World, api: Replica, receiver: Receiver) -> None:
    for number in range(30):
        await world.end(number, after=0)
    world.clock.now += 60
    await world.endpoint(api, receiver)
    await api.round()
    world.store.calls.clear()
    for _ in range(20):
        await api.sender.round(_certain)
    assert world.store.calls == []


async def test_without_an_endpoint_there_is_one_look_and_the_first_endpoint_begins_it(
    world: World, api: Replica, receiver: Receiver
) -> None:
    async with in_background(api.sender.run()):
        await until(lambda: world.store.calls, "the look")
        await asyncio.sleep(0.1)
        assert world.store.calls == [("list", "webhooks/endpoints/")]
        await world.endpoint(api, receiver)
        await until(lambda: "webhooks/claim.json" in world.store.held, "the first endpoint")


async def test_when_the_last_endpoint_is_deleted_it_ends(world: World, receiver: Receiver) -> None:
    world.look_seconds = 0.05
    api = await world.replica()
    endpoint = await world.endpoint(api, receiver)
    async with in_background(api.sender.run()):
        await until(lambda: "webhooks/claim.json" in world.store.held, "it works")
        await api.client().webhooks.delete(endpoint.id)
        given_back = lambda: json.loads(world.store.held["webhooks/claim.json"].data)["given_back"]  # noqa: E731
        await until(given_back, "the lease is given back")


async def test_an_outage_or_a_refusal_makes_it_wait_and_is_no_failure(
    world: World, api: Replica, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await world.endpoint(api, receiver)
    denied = True
    create = world.store.create

    async def refuse(key: str, data: bytes) -> str:
        if denied and key.startswith("webhooks/deliveries/"):
            raise ConfigError("the object store denies the access key 'api' a right")
        return await create(key, data)

    monkeypatch.setattr(world.store, "create", refuse)
    async with in_background(api.sender.run()) as running:
        await until(lambda: "webhooks/claim.json" in world.store.held, "it works")
        await world.end(1)
        await api.projection.reconcile()
        await until(lambda: "refuses the sender of webhooks" in caplog.text, "it is refused")
        world.store.available = False
        calls = len(world.store.calls)
        await api.database.counts()
        denied = False
        await until(lambda: len(world.store.calls) > calls, "it tries")
        world.store.available = True
        await until(lambda: states(world) == ["delivered"], "it is sent")
        assert not running.done()
    assert caplog.text.count("refuses the sender of webhooks") == 1
    assert "whsec_" not in caplog.text


async def test_documents_that_cannot_be_read_hide_only_themselves(
    world: World, api: Replica, receiver: Receiver
) -> None:
    endpoint = await world.endpoint(api, receiver)
    world.store.add(f"webhooks/endpoints/whe_{'a' * 24}.json", b"{")
    world.store.add(f"webhooks/endpoints/whe_{'b' * 24}.json", world.store.held[_key(endpoint.id)].data)
    world.store.add(f"webhooks/deliveries/{endpoint.id}/evt_x.json", b"[]")
    await world.end(1)
    await api.round()
    assert len(receiver.got) == 1


def _key(endpoint_id: str) -> str:
    return f"webhooks/endpoints/{endpoint_id}.json"


async def test_what_was_sent_is_counted(world: World, api: Replica, receiver: Receiver) -> None:
    before = await scrape()
    await world.endpoint(api, receiver)
    await world.end(1)
    receiver.status = 500
    await api.round()
    receiver.status = 200
    world.clock.now += HOUR
    await api.round()
    grown = (await scrape()).since(before)
    assert grown("tunestream_webhook_tries_total", outcome="failed") == 1
    assert grown("tunestream_webhook_tries_total", outcome="sent") == 1
