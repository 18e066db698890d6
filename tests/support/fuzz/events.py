"""Hostile records on the topics that services read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from shared.events import BY_TOPIC, Event, JobControl
from tests.support.data.job_history import JobHistory
from tests.support.fuzz.values import broken, bucket, mutated, no_key, noise

_UNREAD = ("inference.logged", "inference.feedback", "model.degraded", "synthesis.progress")
TOPICS = tuple(topic for topic in BY_TOPIC if topic not in _UNREAD)
"""Those that a service reads."""
UPLOADS = "dataset.uploaded"
PLACE = "_fuzz/"
"""Where the datasets lie that events announce; sweeps leave them alone."""
TOO_LARGE = 1_100_000
"""Bytes, more than Kafka takes in one record by default."""


@dataclass(frozen=True)
class HostileEvent:
    """A record. `kind` is the generator that made it; `dataset` is the key of the object that it announces, if there
    is one."""

    kind: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    dataset: str | None = None


def event(random: Random, number: int) -> HostileEvent:
    """The hostile record `number`."""
    kind = random.choice(list(_KINDS))
    return _KINDS[kind](random, number)


def _usual(topic: str, number: int) -> dict[str, Any]:
    """The data of a right event, about a job that is not there."""
    history = JobHistory(10_000 + number)
    events: tuple[Event, ...] = (
        history.uploaded,
        history.validated,
        history.trained,
        history.evaluated,
        history.ended,
        history.progress("trainer", step=3, total_steps=9, data={"train_loss": 0.5}),
        history.failed(),
        JobControl(job_id=history.job_id, action="cancel"),
    )
    data: dict[str, Any] = next(
        (each.model_dump(mode="json", exclude_none=True) for each in events if each.topic == topic), {}
    )
    return data


def _key(random: Random) -> bytes | None:
    return random.choice((None, b"", b"ftjob-x", b"\xff\xfe", b"k" * 3_000, "schlüssel".encode()))


def _with(kind: str, make: Callable[[Random, dict[str, Any]], bytes | None]) -> Callable[[Random, int], HostileEvent]:
    def generate(random: Random, number: int) -> HostileEvent:
        topic = random.choice(TOPICS)
        return HostileEvent(kind, topic, _key(random), make(random, _usual(topic, number)), _headers(random))

    return generate


def _headers(random: Random) -> tuple[tuple[str, bytes], ...]:
    if random.random() < 0.7:
        return ()
    odd: tuple[tuple[str, bytes], ...] = (
        # two events with one id are one event
        (
            "ce_id",
            random.choice((b"\xff", b"x" * 5_000, b"../x", "é\u202e".encode())) + random.randbytes(6).hex().encode(),
        ),
        ("ce_time", random.choice((b"yesterday", b"9999-99-99", b"0001-01-01T00:00:00+23:59", b"", b"\xfe"))),
        ("ce_type", random.choice((b"tunestream.other.v9", b"\0"))),
        ("ce_source", random.choice((b"/x\r\ny", b"s" * 9_000, b"\xff"))),
        ("ce_subject", b"\xed\xa0\x80"),
        ("traceparent", random.choice((b"00-0-0-0", b"zz", b"00-" + b"f" * 32 + b"-" + b"f" * 16 + b"-ff"))),
        ("content-type", random.choice((b"text/plain", b"application/json; charset=\xff"))),
        ("dlq_topic", b"job.failed"),
        ("", b"no name"),
        ("correlation_id", b"\xc3\x28"),
    )
    return tuple(random.choices(odd, k=random.randint(1, 4)))


def _upload(kind: str, random: Random, data: dict[str, Any], dataset: str | None = None) -> HostileEvent:
    value = json.dumps(data).encode()
    return HostileEvent(kind, UPLOADS, _key(random), value, _headers(random), dataset)


def _nowhere(random: Random, number: int) -> HostileEvent:
    """An announcement of a dataset that is not there, or cannot be."""
    place = {"bucket": bucket(random), "key": no_key(random)}
    if random.random() < 0.5:
        place["bucket"] = "datasets"
    return _upload("nowhere", random, {"dataset": place})


def _validation(random: Random, number: int) -> HostileEvent:
    """A dataset that is there, with a validation file that is not, or cannot be."""
    key = f"{PLACE}{number}.jsonl"
    place = {"bucket": random.choice(("datasets", bucket(random))), "key": no_key(random)}
    data = {"dataset": {"bucket": "datasets", "key": key}, "validation_file": place, "spec": {"seed": number}}
    return _upload("validation_file", random, data, key)


def _settings(random: Random, number: int) -> HostileEvent:
    """A dataset that is there, with settings that are wrong in one place."""
    key = f"{PLACE}{number}.jsonl"
    spec = {"suffix": "x", "hyperparameters": {"n_epochs": 1, "max_grad_norm": 1.0}, "metadata": {"a": "b"}}
    data = {"dataset": {"bucket": "datasets", "key": key}, "spec": spec, "origin": {"source": "/fuzz"}}
    value = mutated(data, random)
    return HostileEvent("settings", UPLOADS, _key(random), value, _headers(random), key)


def _unknown_job(random: Random, number: int) -> HostileEvent:
    """A right event about a job that is not there, or cannot be."""
    topic = random.choice(TOPICS)
    job = random.choice(("", "..", "a/b", "ftjob-" + "x" * 2_000, "\u0000", "ftjob-\u202e", "../../deployments/x", "*"))
    return HostileEvent(
        "unknown_job", topic, None, json.dumps(_usual(topic, number) | {"job_id": job}).encode(), _headers(random)
    )


def _too_large(random: Random, number: int) -> HostileEvent:
    data = {"dataset": {"bucket": "datasets", "key": "k"}, "padding": "x" * TOO_LARGE}
    return _upload("too_large", random, data)


_KINDS: dict[str, Callable[[Random, int], HostileEvent]] = {
    "noise": _with("noise", lambda random, data: noise(random)),
    "nothing": _with("nothing", lambda random, data: random.choice((None, b"", b" ", b"null", b"[]", b'"x"', b"7"))),
    **{f"broken_{n}": _with("broken", lambda random, data: broken(data, random)) for n in range(2)},
    **{f"mutated_{n}": _with("mutated", lambda random, data: mutated(data, random)) for n in range(8)},
    "unknown_job": _unknown_job,
    **{f"nowhere_{n}": _nowhere for n in range(2)},
    "validation_file": _validation,
    "settings": _settings,
}
RARE = (_too_large,)
"""Generators that are too expensive to be drawn often."""
