"""Webhooks on the real embedded store: endpoints, deliveries and the lease, from creation to delivery."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest

from services.api.domain.webhooks import DELIVERIES, Delivery
from shared.tasks import in_background
from tests.support.embedded import Embedded
from tests.support.fakes.clock import Clock
from tests.support.waiting import until
from tests.unit.api.webhooks.world import World


async def test_two_replicas_tell_the_end_of_a_job_once(own_parts: Embedded, tmp_path: Path) -> None:
    objects = own_parts.objects
    world = World(tmp_path, Clock(objects.now() + 5), objects)
    async with world.stack:
        replicas = [await world.replica(name) for name in ("one", "two")]
        receiver = await world.receiver()
        async with in_background(replicas[0].sender.run()), in_background(replicas[1].sender.run()):
            hooks = replicas[0].client().webhooks
            gone = await world.endpoint(replicas[1], receiver)
            made = await world.endpoint(replicas[0], receiver)
            await hooks.delete(gone.id)
            rotated = await hooks.rotate_secret(made.id)
            assert [each.id async for each in hooks.list()] == [made.id]
            job = await world.end(1)
            await asyncio.gather(*(replica.projection.reconcile() for replica in replicas))
            await until(lambda: receiver.got, "the webhook")

            async def delivered() -> bool:
                keys = [entry.key for entry in await objects.list(DELIVERIES)]
                found = [await objects.get(key) for key in keys]
                return [Delivery.model_validate_json(each[0]).state for each in found if each] == ["delivered"]

            await until(delivered, "it is written down")
    (got,) = receiver.got
    event = hooks.unwrap(got.body, got.headers, secret=rotated.signing_secret)
    assert event.data.id == job  # type: ignore[union-attr]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        hooks.unwrap(got.body, got.headers, secret=made.signing_secret)
