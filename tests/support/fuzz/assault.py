"""Sends hostile items to a running stack, and finds out what became of each."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aiokafka.errors import KafkaError
from botocore.exceptions import BotoCoreError, ClientError

from cli.dlq.topics import DeadLetters
from services.ingest.domain.datasets import is_dataset
from shared.events import BY_TOPIC, DatasetUploaded
from shared.kafka import envelope
from shared.settings import BusSettings
from tests.support.broker import KafkaBroker
from tests.support.data.datasets import good
from tests.support.fuzz import drops, events, requests
from tests.support.fuzz.drops import FEW, FOLDER, HostileDrop
from tests.support.fuzz.events import PLACE, TOPICS, HostileEvent
from tests.support.fuzz.requests import HostileRequest, Target
from tests.support.user import User

SHARES = {"event": 0.5, "sidecar": 0.12, "key": 0.1, "dataset": 0.14, "request": 0.14}
"""Which share of the items is of which kind. An event costs a few milliseconds, a drop a whole job."""
RARE_EVERY = 100
"""One of so many events is of a kind that is expensive."""
ABOUT_NO_JOB = ("model.deployed", "job.progress", "job.failed", "job.control")
"""Topics whose right events are ignored if they are about no job: nobody has to do anything about them."""

Item = HostileEvent | HostileDrop | HostileRequest


def items(seed: str, count: int, target: Target) -> list[Item]:
    """`count` items in a random order. Each is made from the seed and its number alone."""
    made: list[Item] = []
    kinds = Random(seed).choices(list(SHARES), list(SHARES.values()), k=count)
    for number, kind in enumerate(kinds):
        random = Random(f"{seed}/{number}")
        match kind:
            case "event" if number % RARE_EVERY == 0:
                made.append(random.choice(events.RARE)(random, number))
            case "event":
                made.append(events.event(random, number))
            case "request":
                made.append(requests.request(random, target))
            case _:
                made.append(
                    {"sidecar": drops.sidecar, "key": drops.key, "dataset": drops.dataset}[kind](random, number)
                )
    return made


@dataclass
class Assault:
    """A stranger who sends items. `places` holds each event that the broker took, by `topic/partition@offset`."""

    user: User
    places: dict[str, HostileEvent] = field(default_factory=dict)
    fates: Counter[str] = field(default_factory=Counter)
    """How many items had which fate. Those that the broker or the store refuses have theirs at once."""
    broken: list[str] = field(default_factory=list)
    """Requests that the services answered as bugs, or not at all."""

    def send(self, some: Sequence[Item]) -> None:
        """Send items: events, drops and requests at the same time."""
        failures: list[BaseException] = []

        def run(what: Any, *arguments: Any) -> None:
            try:
                what(*arguments)
            except BaseException as error:
                failures.append(error)

        some_events = [item for item in some if isinstance(item, HostileEvent)]
        threads = [
            threading.Thread(target=run, args=(lambda: asyncio.run(self._publish(some_events)),)),
            threading.Thread(target=run, args=(self._drop, [item for item in some if isinstance(item, HostileDrop)])),
            threading.Thread(target=run, args=(self._ask, [item for item in some if isinstance(item, HostileRequest)])),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    # --- sending ----------------------------------------------------------------------------------------------

    @property
    def settings(self) -> BusSettings:
        return BusSettings(bootstrap=self.user.env["TUNESTREAM_KAFKA"], idempotent=False)

    async def _publish(self, some: Sequence[HostileEvent]) -> None:
        s3 = self.user.s3
        async with KafkaBroker(self.settings).producer() as producer:
            for event in some:
                if event.dataset:
                    await asyncio.to_thread(s3.put_object, Bucket="datasets", Key=event.dataset, Body=good(FEW))
                headers = list(event.headers)
                try:
                    if event.value is None and event.key is None:
                        batch = producer.create_batch()
                        batch.append(key=None, value=None, timestamp=None, headers=headers)
                        sent = await (await producer.send_batch(batch, event.topic, partition=0))
                    else:
                        sent = await producer.send_and_wait(event.topic, event.value, key=event.key, headers=headers)
                except KafkaError as error:
                    self.fates[f"event: refused by the broker ({type(error).__name__})"] += 1
                else:
                    self.places[f"{sent.topic}/{sent.partition}@{sent.offset}"] = event

    def _drop(self, some: Sequence[HostileDrop]) -> None:
        s3 = self.user.s3
        for drop in some:
            try:
                if drop.sidecar is not None:
                    s3.put_object(Bucket="datasets", Key=drop.sidecar_key, Body=drop.sidecar)
                s3.put_object(Bucket="datasets", Key=drop.key, Body=drop.rows)
            except (ClientError, BotoCoreError):
                self.fates["drop: refused by the store"] += 1

    def _ask(self, some: Sequence[HostileRequest]) -> None:
        for request in some:
            status = request.send()
            self.fates[f"request: {status}"] += 1
            if request.whole if status is None else status >= 500:
                self.broken.append(f"{status}: {request.kind}: {request.data[:300]!r} … {request.data[-60:]!r}")

    # --- what became of it ------------------------------------------------------------------------------------

    def dropped(self) -> list[str]:
        """The keys of all datasets that the sweep must take, as the store lists them."""
        pages = self.user.s3.get_paginator("list_objects_v2").paginate(Bucket="datasets", Prefix=f"{FOLDER}/")
        return [item["Key"] for page in pages for item in page.get("Contents", []) if is_dataset(item["Key"])]

    def quarantined(self) -> set[str]:
        """The places of all datasets in quarantine."""
        s3 = self.user.s3
        read = (s3.get_object(Bucket="tunestream", Key=key)["Body"].read() for key in self.user.ledger("quarantine/"))
        return {json.loads(document)["place"] for document in read}

    def letters(self) -> set[str]:
        """The places of all records that have a dead letter."""

        async def read() -> set[str]:
            async with DeadLetters(self.settings) as letters:
                topics = [topic for topic in await letters.topics() if topic.removesuffix(".dlq") in TOPICS]
                return {letter.place async for letter in letters.read(topics)}

        return asyncio.run(read())

    def lost(self) -> list[str]:
        """The items of which nothing became that a user can find; and counts what became of the others."""
        found = Found(list(self.user.jobs()), self.quarantined(), self.letters())
        fates = [
            (f"event {place} ({event.kind}): {(event.value or b'')[:300]!r}", found.fate_of(place, event))
            for place, event in self.places.items()
        ]
        fates += [(f"drop {key!r}", found.fate_of_dataset(f"s3://datasets/{key}")) for key in self.dropped()]
        self.fates.update(f"{what.split()[0]}: {fate or 'LOST'}" for what, fate in fates)
        return [what for what, fate in fates if fate is None]


class Found:
    """What became of hostile items, as users can find it."""

    def __init__(self, jobs: Sequence[dict[str, Any]], quarantined: set[str], letters: set[str]) -> None:
        self._jobs = {job["id"] for job in jobs}
        self._taken = {f"s3://{job['dataset']['bucket']}/{job['dataset']['key']}" for job in jobs}
        self._quarantined = quarantined
        self._letters = letters

    def fate_of(self, place: str, event: HostileEvent) -> str | None:
        """What became of an event; None: nothing, although it is none that may be ignored."""
        if place in self._letters:
            return "dead letter"
        try:
            parsed: Any = BY_TOPIC[event.topic].model_validate(envelope.parse(event.value))
        except (ValueError, RecursionError):
            return None
        if isinstance(parsed, DatasetUploaded) and parsed.job_id is None:
            return self.fate_of_dataset(f"s3://{parsed.dataset.bucket}/{parsed.dataset.key}")
        return "ignored" if event.topic in ABOUT_NO_JOB and parsed.job_id not in self._jobs else None

    def fate_of_dataset(self, place: str) -> str | None:
        if place in self._taken:
            return "job"
        return "quarantine" if place in self._quarantined else None


def is_hostile(job: dict[str, Any]) -> bool:
    """Whether a job was made of a hostile item."""
    return bool(job["dataset"]["key"].startswith((f"{FOLDER}/", PLACE)))
