"""`tunestream dlq` against the real broker: a poison message is seen, explained, and sent again as it came."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from shared.events import InferenceFeedback
from shared.kafka.bus import Delivery
from shared.settings import load_settings
from tests.support.broker import running
from tests.support.embedded import Embedded
from tests.support.environment import settings_read_anew
from tests.support.waiting import until

TOPIC = "inference.feedback"  # no other test uses it
HEADERS = [("ce_id", b"one"), ("odd", b"\xff"), ("odd", b"again")]
UNREADABLE = b'{"request_id": "r1", "rating": "\\u001b[31mred"}'
UNHANDLED = b'{"request_id": "r2", "rating": "up", "extra":  1}'


@pytest.fixture(autouse=True)
def target(parts: Embedded, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TUNESTREAM_API__URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TUNESTREAM_BUS__BOOTSTRAP", parts.stack.kafka)
    level = logging.getLogger("aiokafka").level
    with settings_read_anew():
        yield
    logging.getLogger("aiokafka").setLevel(level)


def dlq(*words: str) -> Result:
    result = CliRunner().invoke(app, ["dlq", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def listed() -> dict[str, object]:
    (summary,) = json.loads(dlq("list", TOPIC, "--json").stdout)
    return {name: summary[name] for name in ("letters", "messages", "readable", "reasons")}


async def two_services_refuse(parts: Embedded, *values: bytes) -> None:
    """Two services refuse the same event; each writes a dead letter."""

    async def broken(event: InferenceFeedback, delivery: Delivery) -> None:
        raise KeyError("not ready for this")

    await parts.broker.send(TOPIC, *values, key=b"\x00k", headers=HEADERS)
    subscriptions = [(InferenceFeedback, broken)]
    async with (
        running(parts.broker, "dlq-a", *subscriptions),
        running(parts.broker, "dlq-b", *subscriptions),
    ):
        await parts.broker.read(f"{TOPIC}.dlq", 2 * len(values))


async def heard_of(parts: Embedded, request_id: str) -> None:
    heard: list[str] = []

    async def handler(event: InferenceFeedback, delivery: Delivery) -> None:
        heard.append(event.request_id)

    async with running(parts.broker, "dlq-fixed", (InferenceFeedback, handler)):
        await until(lambda: heard.count(request_id) == 2, "the fixed service takes the event and its replay")


def test_a_poison_message_is_listed_shown_and_sent_again(parts: Embedded) -> None:
    empty = dlq("list", TOPIC)
    assert empty.exit_code == 0
    assert "no dead letters" in empty.stderr

    asyncio.run(two_services_refuse(parts, UNREADABLE, UNHANDLED))
    assert listed() == {
        "letters": 4,
        "messages": 2,
        "readable": 2,
        "reasons": {"ValidationError": 2, "KeyError": 2},
    }
    table = dlq("list").stdout
    assert f"{TOPIC}.dlq" in table and "KeyError 2" in table

    shown = {offset: dlq("show", TOPIC, str(offset)) for offset in range(4)}
    unreadable = [offset for offset, result in shown.items() if "ValidationError" in result.stdout]
    unhandled = [offset for offset in shown if offset not in unreadable]
    assert "rating: " in shown[unreadable[0]].stdout and "\\u001b[31mred" in shown[unreadable[0]].stdout
    assert all("\x1b" not in result.stdout and "odd: \\xff" in result.stdout for result in shown.values())
    assert "a replay would be understood" in shown[unhandled[0]].stdout
    assert f"{TOPIC}/" in shown[unhandled[0]].stdout
    assert dlq("show", TOPIC, str(unhandled[0]), "--raw").stdout_bytes == UNHANDLED

    refused = dlq("replay", TOPIC, str(unreadable[0]))
    assert refused.exit_code == 1
    assert "rating" in refused.stderr and "--force" in refused.stderr

    every = dlq("replay", f"{TOPIC}.dlq", "--all")
    assert every.exit_code == 1
    assert "1 published again, 1 left out" in every.stderr
    asyncio.run(heard_of(parts, "r2"))
    records = asyncio.run(parts.broker.read(TOPIC, 3))
    again = [record for record in records if record.value == UNHANDLED]
    assert [(record.key, list(record.headers)) for record in again] == [(b"\x00k", HEADERS)] * 2

    assert dlq("replay", TOPIC, str(unreadable[0]), "--force").exit_code == 0
    forced = asyncio.run(parts.broker.read(TOPIC, 4))
    assert sum(record.value == UNREADABLE for record in forced) == 2


def test_an_unknown_topic_or_offset_is_an_error_that_names_it(parts: Embedded) -> None:
    assert "there is no topic nothing.dlq" in dlq("show", "nothing", "0").stderr
    assert "has no letter at offset 99999" in dlq("show", "job.progress", "99999").stderr
    missing = dlq("replay", "job.progress", "99999")
    assert missing.exit_code == 1 and "has no letter at offset 99999" in missing.stderr


def test_a_broker_that_is_away_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESTREAM_BUS__BOOTSTRAP", "127.0.0.1:9")
    load_settings.cache_clear()
    result = dlq("list")
    assert result.exit_code == 1
    assert "no Kafka broker answers at 127.0.0.1:9" in result.stderr and "tunestream up" in result.stderr
