"""What is logged if Kafka denies access to a topic."""

from __future__ import annotations

import logging

import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from shared.errors import TransientError
from shared.events import JobControl
from shared.kafka.access import ConsumerLog
from shared.kafka.bus import Bus
from shared.settings import BusSettings

TRAINER = BusSettings.model_validate(
    {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "trainer", "sasl_password": "canary"}
)


def test_a_topic_that_may_not_be_read_is_one_line_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    denial = TopicAuthorizationFailedError("job.control")
    ConsumerLog(TRAINER).log(logging.ERROR, "Kafka error occurred", exc_info=denial)
    (record,) = caplog.records
    assert record.getMessage() == (
        "Kafka does not let the user 'trainer' (TUNESTREAM_BUS__SASL_USERNAME) read the topic job.control: "
        "add an ACL for it"
    )
    assert record.exc_info is None


def test_other_errors_of_the_consumer_are_logged_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    error = KafkaConnectionError("gone")
    ConsumerLog(TRAINER).log(logging.ERROR, "Kafka error occurred", exc_info=error)
    (record,) = caplog.records
    assert record.getMessage() == "Kafka error occurred"
    assert record.exc_info is not None and record.exc_info[1] is error


async def test_an_event_that_may_not_be_written_is_kept_and_the_topic_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Denied:
        async def send_and_wait(self, topic: str, **record: object) -> None:
            raise TopicAuthorizationFailedError(topic)

    bus = Bus(TRAINER, "trainer")
    monkeypatch.setattr(bus._producer, "_client", Denied())
    with pytest.raises(TransientError):  # so whoever publishes keeps it and tries again
        await bus.publish(JobControl(job_id="ftjob-1", action="cancel"), ce_id="1")
    assert "the user 'trainer' (TUNESTREAM_BUS__SASL_USERNAME) write to the topic job.control" in caplog.text
