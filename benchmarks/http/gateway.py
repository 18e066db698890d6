"""Measures what the gateway adds to a request: `python -m benchmarks.http.gateway`.

A stub of vLLM answers at once. The same requests go to it directly, through our gateway, and through LiteLLM's proxy in
the same run, streamed and not. It is installed apart, because it pins packages that we use in other versions:

    python -m venv .cache/litellm && .cache/litellm/bin/pip install 'litellm[proxy]'

Without it, only the first two are measured. Each server is one process. The CPU time that it used is told beside the
times by the clock, which depend on what else the machine does: requests per second of CPU time are what one core can
do at most.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvicorn

from benchmarks.http.load import KEY, MODEL, Connection, closed_loop, fixed_rate, request, run_stub, until_ready
from services.inference.app import build
from shared.kafka import lag
from shared.kafka.bus import Bus
from shared.process import allow_open_files, collect_rarely
from shared.service import Context, faces, run_async
from shared.settings import Settings
from shared.store.objects import ObjectStore

CONNECTIONS = (1, 16, 64)
STREAMS = 2000
LITELLM = Path(".cache/litellm/bin/litellm")
START_SECONDS = 120.0


@dataclass(frozen=True)
class Target:
    """A server that is measured."""

    name: str
    port: int
    process: psutil.Process

    def cpu(self) -> float:
        """Seconds of CPU time that it has used."""
        used = self.process.cpu_times()
        return float(used.user + used.system)

    def memory(self) -> int:
        """Bytes of its resident memory."""
        return int(self.process.memory_info().rss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--rate", type=float, default=500, help="requests a second, for the latencies")
    parser.add_argument("--streams", type=int, default=STREAMS, help="that are open at once")
    parser.add_argument("--hold", type=float, default=30, help="seconds for which they are open")
    parser.add_argument("--litellm", type=Path, default=LITELLM)
    parser.add_argument("--part", choices=["latency", "throughput", "streams"], help="measure only this")
    parser.add_argument("--serve", nargs=2, metavar=("NAME", "PORT"), help=argparse.SUPPRESS)
    parser.add_argument("--stub", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    allow_open_files(3 * options.streams + 512)
    if options.serve:
        name, port = options.serve
        run_async(run_stub(int(port)) if name == "stub" else run_gateway(int(port), options.stub), uvloop=True)
    else:
        run_async(measure(options), uvloop=True)


async def measure(options: argparse.Namespace) -> None:
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} at the start (this benchmark itself needs two or three cores)")
    with servers(options.litellm) as targets:
        for target in targets:
            await until_ready(target.port, target.process.status, request(target.port), START_SECONDS)
        if options.part in (None, "latency"):
            await latency(targets, options.rate, options.seconds)
        if options.part in (None, "throughput"):
            await throughput(targets, options.seconds)
        if options.part in (None, "streams"):
            await open_streams(targets, options.streams, options.hold)


async def latency(targets: list[Target], rate: float, seconds: float) -> None:
    for stream in (False, True):
        print(f"\nlatency, {_kind(stream)}, in ms: p50, p95, p99 (added to direct); CPU time each")
        direct: dict[float, list[float]] = {}
        for target in targets:
            content = request(target.port, stream=stream)
            most, _ = await closed_loop(target.port, content, 4, 2)
            # a server that is sent more than it can do would be measured by the length of its queue
            sustained = rate if len(most) / 2 > 1.2 * rate else max(1.0, round(len(most) / 4))
            if sustained not in direct:
                direct[sustained] = _percentiles(await fixed_rate(targets[0].port, content, sustained, seconds))
            before = target.cpu()
            found = _percentiles(await fixed_rate(target.port, content, sustained, seconds))
            cpu = (target.cpu() - before) / (sustained * seconds)
            pairs = zip(found, direct[sustained], strict=True)
            told = ", ".join(f"{one:.2f} (+{one - base:.2f})" for one, base in pairs)
            print(f"  {target.name:9} at {sustained:.0f}/s: {told}; {cpu * 1000:.3f} ms")


async def throughput(targets: list[Target], seconds: float) -> None:
    for stream in (False, True):
        for connections in CONNECTIONS:
            print(
                f"\nthroughput, {connections} connections, {_kind(stream)}: requests/s; p50, p95, p99 in ms; per core"
            )
            per_core: dict[str, float] = {}
            for target in targets:
                content = request(target.port, stream=stream)
                before = target.cpu()
                latencies, elapsed = await closed_loop(target.port, content, connections, seconds)
                per_core[target.name] = len(latencies) / (target.cpu() - before)
                told = ", ".join(f"{one:.2f}" for one in _percentiles(latencies))
                rate = len(latencies) / elapsed
                print(f"  {target.name:9} {rate:7.0f}; {told}; {per_core[target.name]:.0f} per second of CPU time")
            if "litellm" in per_core:
                ratio = per_core["gateway"] / per_core["litellm"]
                print(f"  ratio: the gateway answers {ratio:.1f} times as many as LiteLLM with the same CPU time")


async def open_streams(targets: list[Target], count: int, seconds: float) -> None:
    [gateway] = [target for target in targets if target.name == "gateway"]
    print(f"\n{count} open streams through the gateway, an event a second each")
    content, before = request(gateway.port, hold=True), gateway.memory()
    connections: list[Connection] = []
    for _ in range(count):
        connections.append(await Connection.open(gateway.port))
        await connections[-1].begin(content)
    full, used, began = gateway.memory(), gateway.cpu(), time.perf_counter()
    slowest, asked = 0.0, 0
    peak = full
    probe = await Connection.open(gateway.port)
    ready = f"GET /health/ready HTTP/1.1\r\nhost: 127.0.0.1:{gateway.port}\r\n\r\n".encode()
    while time.perf_counter() - began < seconds:
        sent = time.perf_counter()
        if await probe.send(ready) != 200:
            raise RuntimeError("the gateway is not ready: it takes vLLM for dead")
        slowest, asked = max(slowest, time.perf_counter() - sent), asked + 1
        peak = max(peak, gateway.memory())
        await asyncio.sleep(0.5)
    cpu = (gateway.cpu() - used) / (time.perf_counter() - began)
    print(f"  memory {before >> 20} MiB before, {full >> 20} MiB with all, at most {peak >> 20} MiB in {seconds:.0f} s")
    print(f"  {(full - before) / count / 1024:.1f} KiB each; {cpu:.0%} of a core")
    print(f"  ready at all of {asked} looks, the slowest took {slowest * 1000:.0f} ms")
    for connection in connections:
        connection.close()


# --- the servers --------------------------------------------------------------------------------------------------


@contextmanager
def servers(litellm: Path) -> Iterator[list[Target]]:
    """The stub, our gateway in front of it, and LiteLLM's proxy in front of it if it is installed."""
    us = [sys.executable, "-m", "benchmarks.http.gateway"]
    ports = [_free_port() for _ in range(3)]
    stub = str(ports[0])
    commands = {
        "direct": [*us, "--serve", "stub", stub],
        "gateway": [*us, "--serve", "gateway", str(ports[1]), "--stub", stub],
    }
    with tempfile.TemporaryDirectory() as folder:
        if litellm.exists():
            config = Path(folder, "config.yaml")
            config.write_text(LITELLM_CONFIG.format(model=MODEL, port=stub))
            commands["litellm"] = [
                str(litellm),
                "--config",
                str(config),
                "--host",
                "127.0.0.1",
                "--port",
                str(ports[2]),
            ]
        else:
            print(f"{litellm} is not installed, so there is no comparison with it")
        environment = {**os.environ, "LITELLM_MASTER_KEY": KEY}
        started: list[subprocess.Popen[bytes]] = []
        targets: list[Target] = []
        try:
            for (name, command), port in zip(commands.items(), ports, strict=False):
                quiet = subprocess.DEVNULL if name == "litellm" else None
                started.append(subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet))
                targets.append(Target(name, port, psutil.Process(started[-1].pid)))
            yield targets
        finally:
            for process in started:
                process.kill()
                process.wait()


LITELLM_CONFIG = """
model_list:
  - model_name: {model}
    litellm_params: {{model: hosted_vllm/{model}, api_base: "http://127.0.0.1:{port}/v1", api_key: key}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""


async def run_gateway(port: int, stub: int) -> None:
    """Our gateway as the inference service composes it, without store and bus, which a request for the base does not
    need."""
    collect_rarely()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate(
            {
                "model": {"id": MODEL},
                "vllm": {"url": f"http://127.0.0.1:{stub}"},
                "inference": {"port": port, "adapter_dir": folder, "api_keys": [KEY]},
            }
        )
        objects = ObjectStore.connect(settings.store)
        bus = Bus(settings.bus, "inference", objects.now)
        parts = build(Context(settings, objects, bus))
        app, _ = faces("inference", settings, parts, parts.checks, lambda: lag.measure(bus))[0]
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False)
        async with asyncio.TaskGroup() as group:
            for background in parts.background:
                group.create_task(background())
            await uvicorn.Server(config).serve()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _percentiles(seconds: list[float]) -> list[float]:
    """p50, p95, p99 in milliseconds."""
    cuts = statistics.quantiles(seconds if len(seconds) > 1 else seconds * 2, n=100)
    return [cuts[at] * 1000 for at in (49, 94, 98)]


def _kind(stream: bool) -> str:
    return "streamed" if stream else "not streamed"


if __name__ == "__main__":
    main()
