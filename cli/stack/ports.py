"""Finds free TCP ports on loopback: the usual ports if they are free, else the next ones."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from cli.terminal import CliError

HOST = "127.0.0.1"
GRPC_OFFSET = 10_000  # SeaweedFS also uses the port of each of its parts + 10000
SEARCH = 500

USUAL = {
    "s3": 8333,
    "master": 9333,
    "volume": 9340,
    "filer": 8888,
    "admin": 23646,
    "kafka": 9092,
    "inference": 8000,
    "api": 8080,
    "ingest": 8101,
    "validate": 8102,
    "trainer": 8103,
    "evaluator": 8104,
    "render": 8105,
    "inference_metrics": 8106,
    "api_metrics": 8107,
}
WITH_TWIN = frozenset({"s3", "master", "volume", "filer", "admin"})


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now. Connections that linger after a restart are ignored."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose(preferred: Mapping[str, int], free: Callable[[int], bool] = is_free) -> dict[str, int]:
    """A free port for each part of `USUAL`: the preferred one, else the usual one, else the next that is free.

    Raises:
        CliError: hundreds of ports in a row are taken.
    """
    chosen: dict[str, int] = {}
    taken: set[int] = set()
    for name, usual in USUAL.items():
        wanted = preferred.get(name, usual)
        offsets = (0, GRPC_OFFSET) if name in WITH_TWIN else (0,)
        for port in range(wanted, wanted + SEARCH):
            numbers = {port + offset for offset in offsets}
            if max(numbers) < 65_536 and not numbers & taken and all(map(free, numbers)):
                chosen[name] = port
                taken |= numbers
                break
        else:
            raise CliError(
                f"no port is free for {name} between {wanted} and {wanted + SEARCH}",
                "end what listens there (`ss -ltnp` lists it)",
            )
    return chosen
