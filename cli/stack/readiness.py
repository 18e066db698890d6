"""Probes that tell whether a part of the stack is ready. A probe returns None if so, else a few words on what is
missing."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from functools import cache

import httpx

from cli.stack.boot import NO_ANSWER, Probe, tail
from cli.stack.config import log_file
from cli.stack.programs import BUS_BUCKET, RENDER
from cli.stack.state import Stack
from shared.errors import ConfigError
from shared.settings import BusSettings

VLLM_BEGINS = "vLLM is starting"
"""What the inference service logs before each start."""
VLLM_LINES = 60
VLLM_STEPS = tuple(
    (re.compile(pattern), step)
    for pattern, step in (
        (r"vLLM API server version|non-default args|Initializing a V1 LLM engine", "importing its libraries"),
        (r"checkpoint shards: +(?P<share>\d+)%", "loading the weights"),
        (r"Starting to load model|Loading weights took", "loading the weights"),
        (r"Dynamo bytecode transform|Compiling a graph|compiled graph|Model loading took", "compiling"),
        (r"Capturing CUDA graphs[^%]*?: +(?P<share>\d+)%", "capturing CUDA graphs"),
        (r"torch\.compile took|Available KV cache memory|KV cache size|Profiling CUDA graph", "reserving memory"),
        (r"Graph capturing finished|init engine \(|Starting vLLM", "almost ready"),
    )
)
"""Lines of vLLM 0.26 and 0.32 from which one sees what it does next, the last of which counts."""

PROBE_SECONDS = 1.0
WARNING_SECONDS = 30.0
"""How long a program that is ready, but warns of something, is waited for."""


def probe_for(name: str, stack: Stack) -> Probe:
    """The probe of one program of the stack."""
    if name == "weed":
        return _s3(stack)
    if name == "tansu":
        return _kafka(stack)
    if name == "inference":
        return telling(http(stack.ports[name]), lambda: vllm_step(tail(log_file(stack.logs, name), VLLM_LINES)))
    return http(stack.ports[name], "/health" if name == RENDER else "/health/ready")


def telling(probe: Probe, doing: Callable[[], str | None]) -> Probe:
    """`probe`, whose note also says what the program is `doing`."""

    def told() -> str | None:
        note = probe()
        step = doing() if note is not None else None
        return f"{note}: {step}" if step else note

    return told


def vllm_step(lines: Sequence[str]) -> str | None:
    """What a vLLM that starts is doing, by the last lines of the log of inference; None: nothing is known."""
    for line in reversed(lines):
        if VLLM_BEGINS in line:  # what is before it is of an earlier start
            return VLLM_STEPS[0][1]
        for pattern, step in VLLM_STEPS:
            if found := pattern.search(line):
                share = f" ({found['share']} %)" if found.groupdict().get("share") else ""
                return step + share
    return None


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
            answer = _loopback().get(f"http://127.0.0.1:{port}{path}")
        except httpx.TransportError:
            return NO_ANSWER
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


@cache
def _loopback() -> httpx.Client:
    """One for all probes. A new one reads all certificates of the system, and a start would spend half a core on that.
    No proxy is needed on loopback, and what restarts is asked over a new connection."""
    return httpx.Client(timeout=PROBE_SECONDS, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def _troubles(answer: httpx.Response, name: str) -> str:
    """The problems or warnings in the body of /health/ready; empty if it has none."""
    try:
        return ", ".join(f"{part}: {trouble}" for part, trouble in answer.json()[name].items())
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
