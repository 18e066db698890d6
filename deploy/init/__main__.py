"""`python -m deploy.init`: create in Kafka and MinIO what `stack.yaml` declares. Safe to repeat; waits for both."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.init import plan
from deploy.init.kafka import KafkaAdmin
from deploy.init.store import Store
from shared.errors import ConfigError

WAIT_SECONDS = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="deploy.init", description=__doc__)
    parser.add_argument("--stack", type=Path, default=Path(__file__).parent.parent / "stack.yaml")
    parser.add_argument("--kafka", default=os.environ.get("KAFKA_ADMIN", "kafka:9095"), metavar="HOST:PORT")
    parser.add_argument("--store", default=os.environ.get("S3_ENDPOINT", "https://minio:9000"), metavar="URL")
    parser.add_argument("--passwords", type=Path, default=Path("/run/secrets/passwords.json"))
    parser.add_argument("--ca", type=Path, default=Path("/run/secrets/ca.pem"))
    logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stderr)
    try:
        ensure(parser.parse_args())
    except ConfigError as error:
        sys.exit(f"tunestream init: {error}")


def ensure(options: argparse.Namespace) -> None:
    """Bring both servers in line with the files that `options` name.

    Raises:
        ConfigError: a file is wrong, or a server did not answer; the message says which.
    """
    stack = plan.load(options.stack)
    passwords: Mapping[str, Mapping[str, str]] = json.loads(options.passwords.read_text())
    if missing := plan.without_password(stack, passwords):
        who = ", ".join(missing)
        raise ConfigError(
            f"{options.passwords} has no password for {who}: add the name to deploy/make_secrets.py and run that again"
        )
    admins = passwords["admins"]
    kafka = KafkaAdmin(options.kafka, "admin", admins["kafka"], options.ca)
    _wait_for(kafka.reachable, f"Kafka's administrator at {options.kafka}")
    kafka.topics(plan.topics(stack.kafka))
    kafka.users({user: passwords["kafka"][user] for user in stack.kafka.users})
    kafka.rules(plan.rules(stack.kafka))

    store = Store(options.store, "admin", admins["s3"], options.ca)
    _wait_for(store.reachable, f"MinIO's administrator at {options.store}")
    store.buckets(stack.s3.buckets)
    store.users(stack.s3.users, passwords["s3"])
    store.surplus_users(stack.s3.users)
    store.notifications(stack.s3.notifications)


def _wait_for(reachable: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reachable():
        if time.monotonic() > deadline:
            raise ConfigError(f"{what} did not answer for {WAIT_SECONDS:.0f} s: it is down, or it refuses the password")
        time.sleep(1)


if __name__ == "__main__":
    main()
