"""Probes that tell whether a part of the stack is ready. A probe returns None if so, else a few words on what is
missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx

from cli.stack.programs import BUS_BUCKET, RENDER
from cli.stack.state import Stack
from shared.errors import ConfigError
from shared.settings import BusSettings

Probe = Callable[[], str | None]

PROBE_SECONDS = 1.0
WARNING_SECONDS = 30.0
"""How long a program that is ready, but warns of something, is waited for."""


def probe_for(name: str, stack: Stack) -> Probe:
    """The probe of one program of the stack."""
    if name == "weed":
        return _s3(stack)
    if name == "tansu":
        return _kafka(stack)
    return http(stack.ports[name], "/health" if name == RENDER else "/health/ready")


def _s3(stack: Stack) -> Probe:
    """Ready when the S3 server accepts our credentials and has the buckets."""
    # imported here, because importing the client takes time that other commands need not wait for
    import urllib3  # noqa: PLC0415
    from minio import Minio  # noqa: PLC0415
    from minio.error import S3Error  # noqa: PLC0415

    client = Minio(
        stack.s3_url.removeprefix("http://"),
        access_key=stack.access_key,
        secret_key=stack.secret_key,
        secure=False,
        region=stack.region,
        http_client=urllib3.PoolManager(timeout=PROBE_SECONDS, retries=False),
    )
    wanted = {stack.datasets_bucket, stack.system_bucket, BUS_BUCKET}

    def probe() -> str | None:
        try:
            missing = wanted - {bucket.name for bucket in client.list_buckets()}
        except S3Error as error:
            return f"S3 answers {error.code}"
        except urllib3.exceptions.HTTPError:
            return "S3 does not answer yet"
        return f"no bucket {', '.join(sorted(missing))} yet" if missing else None

    return probe


def _kafka(stack: Stack) -> Probe:
    """Ready when the broker answers and has every topic."""
    from cli.stack.topics import ensure  # noqa: PLC0415  # imports the whole bus

    settings = BusSettings(bootstrap=stack.kafka, idempotent=False)

    def probe() -> str | None:
        try:
            asyncio.run(ensure(settings, wait_seconds=PROBE_SECONDS))
        except ConfigError:
            return "creating topics"
        return None

    return probe


def http(port: int, path: str = "/health/ready", clock: Callable[[], float] = time.monotonic) -> Probe:
    """Ready when `path` of a program answers 200, and warns of nothing. Warnings hold it up only for a while: a service
    works without its bus, but whoever starts a stack would rather find all of it connected."""
    warned_since: float | None = None

    def probe() -> str | None:
        nonlocal warned_since
        try:
            # trust_env: no proxy is needed on loopback
            answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=PROBE_SECONDS, trust_env=False)
        except httpx.TransportError:
            return "does not answer yet"
        ready = answer.status_code == httpx.codes.OK
        troubles = _troubles(answer, "warnings" if ready else "problems")
        if not ready:
            return troubles or f"answers {answer.status_code}"
        if troubles:
            warned_since = warned_since if warned_since is not None else clock()
            if clock() - warned_since < WARNING_SECONDS:
                return troubles
        return None

    return probe


def _troubles(answer: httpx.Response, name: str) -> str:
    """The problems or warnings in the body of /health/ready; empty if it has none."""
    try:
        return ", ".join(f"{part}: {trouble}" for part, trouble in answer.json()[name].items())
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
