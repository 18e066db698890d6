"""Waits for the broker and creates the topics. Every deployment runs `python -m cli.stack.topics` first."""

from __future__ import annotations

import asyncio
import logging
import sys
import time

from aiokafka.errors import KafkaError

from shared.errors import ConfigError
from shared.kafka.diagnosis import find_cause
from shared.kafka.topics import create_topics
from shared.retry import Backoff
from shared.settings import BusSettings, load_settings

PAUSES = Backoff(0.1, 2.0)
WAIT_SECONDS = 60.0


async def ensure(settings: BusSettings, wait_seconds: float = WAIT_SECONDS) -> None:
    """Create the topics that are missing. Waits for a broker that is still starting.

    Raises:
        ConfigError: no broker answered in time, or waiting for it is useless.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # aiokafka logs each refused connection
    began = time.monotonic()
    deadline = began + wait_seconds
    for pause in PAUSES:
        try:
            await create_topics(settings)
            return
        except (KafkaError, OSError) as error:
            cause = await find_cause(settings, error)
            last = time.monotonic() + pause > deadline
            if cause and (last or time.monotonic() - began >= cause.patience_seconds):
                raise ConfigError(cause.line) from None
            if last:
                raise ConfigError(
                    f"no Kafka broker at {settings.bootstrap} (TUNESTREAM_BUS__BOOTSTRAP) created the topics within "
                    f"{wait_seconds:.0f} s ({type(error).__name__}): it is down, or the address is wrong"
                ) from None
        await asyncio.sleep(pause)


def main() -> None:
    try:
        asyncio.run(ensure(load_settings().bus))
    except ConfigError as error:
        sys.exit(f"tunestream topics: {error}")


if __name__ == "__main__":
    main()
