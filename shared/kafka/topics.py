"""Creates the topics: one per event, and one for its dead letters. Consumers never create a topic."""

from __future__ import annotations

import re

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from shared.events import EVENTS
from shared.kafka.envelope import DLQ_SUFFIX
from shared.kafka.security import client_options
from shared.settings import BusSettings

# twice Kafka's default limit: a dead letter is its record plus some headers, and must not be refused for its size
MAX_LETTER_BYTES = 2 * 2**20

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def is_legal(topic: str) -> bool:
    """Whether Kafka allows a topic of this name."""
    return _NAME.fullmatch(topic) is not None and topic not in (".", "..")


async def create_topics(settings: BusSettings) -> None:
    """Create every topic with `settings.partitions` partitions, and its dead-letter topic with one. Topics that exist
    are kept as they are."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap, **client_options(settings))
    await admin.start()
    try:
        existing = set(await admin.list_topics())
        wanted = {event.topic: settings.partitions for event in EVENTS}
        wanted |= {event.topic + DLQ_SUFFIX: 1 for event in EVENTS}
        missing = [
            NewTopic(
                name=name,
                num_partitions=partitions,
                replication_factor=1,
                topic_configs={"max.message.bytes": str(MAX_LETTER_BYTES)} if name.endswith(DLQ_SUFFIX) else None,
            )
            for name, partitions in wanted.items()
            if name not in existing
        ]
        if missing:
            answer = await admin.create_topics(missing)
            for topic, code, *_ in answer.topic_errors:
                if code not in (0, TopicAlreadyExistsError.errno):  # another process created it first
                    raise for_code(code)(topic)
    finally:
        await admin.close()
