"""Upload a dataset and announce it on Kafka, as any program could: `python publish_event.py rows.jsonl`.

Uses only boto3 and aiokafka. The event is bare JSON without headers; every field that it leaves out has a default.
TUNESTREAM_KAFKA names the broker; KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_USERNAME, KAFKA_PASSWORD and
KAFKA_CA_FILE say how to log in there. The AWS_* variables name the object store, as in drop_s3.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import Any

import boto3
from aiokafka import AIOKafkaProducer
from aiokafka.helpers import create_ssl_context
from botocore.config import Config  # type: ignore[import-untyped]


def login() -> dict[str, Any]:
    """How aiokafka logs in, from the KAFKA_* variables."""
    protocol = os.environ.get("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT")
    options: dict[str, Any] = {"security_protocol": protocol}
    if protocol.startswith("SASL"):
        options["sasl_mechanism"] = os.environ.get("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512")
        options["sasl_plain_username"] = os.environ["KAFKA_USERNAME"]
        options["sasl_plain_password"] = os.environ["KAFKA_PASSWORD"]
    if protocol.endswith("SSL"):
        options["ssl_context"] = create_ssl_context(cafile=os.environ.get("KAFKA_CA_FILE"))
    return options


async def publish(server: str, topic: str, event: dict[str, object]) -> None:
    # Without `enable_idempotence`: some brokers (Tansu) refuse it, and a repeated event is still one job.
    producer = AIOKafkaProducer(bootstrap_servers=server, acks="all", **login())
    await producer.start()
    try:
        await producer.send_and_wait(topic, json.dumps(event).encode())
    finally:
        await producer.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="Upload a dataset and publish dataset.uploaded.")
    parser.add_argument("file", type=Path, help="the dataset, for example support.jsonl")
    parser.add_argument("--key", help="name in the bucket (default: _announced/ and the name of the file)")
    parser.add_argument("--bucket", default="datasets")
    parser.add_argument("--topic", default="dataset.uploaded")
    parser.add_argument("--spec", type=json.loads, help='job settings, for example \'{"suffix": "helpdesk"}\'')
    options = parser.parse_args()
    key = options.key or f"_announced/{options.file.name}"  # the `_` keeps ingest from taking the file as a drop, too
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name=region, config=Config(s3={"addressing_style": "path"}))
    s3.upload_file(str(options.file), options.bucket, key)
    event: dict[str, object] = {"dataset": {"bucket": options.bucket, "key": key}}
    if options.spec:
        event["spec"] = options.spec
    asyncio.run(publish(os.environ.get("TUNESTREAM_KAFKA", "127.0.0.1:9092"), options.topic, event))
    print(json.dumps(event))


if __name__ == "__main__":
    main()
