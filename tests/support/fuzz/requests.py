"""Hostile HTTP requests to gateway and api, as bytes on a connection."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from urllib.parse import urlsplit

from tests.support.fuzz.values import broken, mutated, noise

READ_SECONDS = 60.0


@dataclass(frozen=True)
class HostileRequest:
    """`kind` is the generator that made it, `url` the address of the service. `whole`: a server knows where it ends, so
    it must be answered."""

    kind: str
    url: str
    data: bytes
    whole: bool = True

    def send(self) -> int | None:
        """Send it on a connection of its own. Returns the status; None: the server closed without an answer."""
        address = urlsplit(self.url)
        with socket.create_connection((address.hostname or "", address.port or 80), READ_SECONDS) as connection:
            try:
                connection.sendall(self.data)
                if not self.whole:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it answered before it had read everything
            answer = b""
            try:
                while b"\r\n" not in answer and (more := connection.recv(4096)):
                    answer += more
            except ConnectionResetError:
                return None
        return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else None


@dataclass(frozen=True)
class Target:
    """The addresses of gateway and api, the key that both take, and the base that is served."""

    gateway: str
    api: str
    key: str
    base: str


def request(random: Random, target: Target) -> HostileRequest:
    kind = random.choice(list(_KINDS))
    url, data = _KINDS[kind](random, target)
    return HostileRequest(kind, url, data, whole=kind not in _HALF)


def _raw(random: Random, target: Target, line: bytes, body: bytes = b"", more: bytes = b"") -> bytes:
    key = target.key.encode()
    if random.random() < 0.1:
        key = random.choice((b"", b"\xff\xfe", b"x" * 9_000, key + b" ", b"..", b"\t"))
    return (
        line
        + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer "
        + key
        + b"\r\n"
        + more
        + (b"Content-Length: %d\r\n" % len(body) if body else b"")
        + b"\r\n"
        + body
    )


ROUTES = (b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings", b"/jobs/x/cancel", b"/jobs/x/retry")


def _body(make: Callable[[Random, dict[str, object]], bytes]) -> Callable[[Random, Target], tuple[str, bytes]]:
    def generate(random: Random, target: Target) -> tuple[str, bytes]:
        route = random.choice(ROUTES)
        usual: dict[str, object] = {
            "model": random.choice((target.base, "ft:a:b:c:dddddddd", "nothing", target.base)),
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 2,
            "temperature": 0,
            "stop": ["x"],
        }
        types = (b"application/json", b"application/json", b"text/plain", b"multipart/form-data", b"\xe9; ;=")
        kind = b"Content-Type: " + random.choice(types) + b"\r\n"
        url = target.api if route.startswith(b"/jobs") else target.gateway
        return url, _raw(random, target, b"POST " + route, make(random, usual), kind)

    return generate


PATHS = (
    b"/jobs?limit=1e999",
    b"/jobs?limit=0",
    b"/jobs?limit=" + b"9" * 5_000,
    b"/jobs?limit=NaN&after=%00",
    b"/jobs?after=%ed%a0%80",
    b"/jobs?after=" + b"x" * 20_000,
    b"/jobs?status=nothing",
    b"/jobs?status=%FF",
    b"/jobs/%00",
    b"/jobs/..%2f..%2fetc",
    b"/jobs/../jobs",
    b"/jobs/%ff%fe",
    b"/jobs/" + b"x" * 3_000,
    b"/jobs/ftjob-%E2%80%AE",
    b"/jobs/x/events?order=sideways",
    b"/jobs/x/events?after=-1&limit=99999999999999999999",
    b"/jobs/x/files/..%2f..%2fjob.json",
    b"/jobs/x/files/%00",
    b"/jobs/x/report/../..",
    b"/v1/models/%00",
    b"/v1/models/ft:%3A%3A:::",
    b"/v1/models/" + b"m" * 5_000,
    b"/v1/models/..%2f..",
    b"/deployments/%2e%2e",
    b"/deployments/" + b"a" * 2_000,
    b"/deployments/\xff",
    b"/deployments/%ed%a0%80",
    b"/v1/load_lora_adapter",
    b"//",
    b"/%",
    b"*",
    b"/?" + b"a=b&" * 3_000,
    b"http://elsewhere/jobs",
)
METHODS = (b"GET", b"GET", b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"TRACE", b"BREW", b"get")


def _path(random: Random, target: Target) -> tuple[str, bytes]:
    line = random.choice(METHODS) + b" " + random.choice(PATHS)
    return random.choice((target.gateway, target.api)), _raw(random, target, line)


def _headers(random: Random, target: Target) -> tuple[str, bytes]:
    odd = (
        b"traceparent: 00-0-0-0\r\n",
        b"traceparent: \xff\r\n",
        b"x-request-id: " + b"r" * 9_000 + b"\r\n",
        b"x-request-id: a\tb\x7f\r\n",
        b"accept-encoding: " + b"gzip, " * 2_000 + b"\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"content-length: -1\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"transfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 3\r\n",
        b"content-encoding: gzip\r\n",
        b"expect: 100-continue\r\n",
        b"range: bytes=-5-\r\n",
        b"upgrade: websocket\r\nconnection: upgrade\r\n",
        b"a" * 70_000 + b": b\r\n",
        b"".join(b"h%d: v\r\n" % n for n in range(300)),
    )
    line = random.choice((b"GET /jobs", b"POST /v1/chat/completions", b"GET /v1/models", b"POST /jobs/x/cancel"))
    url = target.api if b"/jobs" in line else target.gateway
    return url, _raw(random, target, line, more=random.choice(odd))


def _noise(random: Random, target: Target) -> tuple[str, bytes]:
    return random.choice((target.gateway, target.api)), noise(random) + b"\r\n\r\n"


def _large(random: Random, target: Target) -> tuple[str, bytes]:
    body = json.dumps({"model": target.base, "messages": [{"role": "user", "content": "x" * 3_000_000}]}).encode()
    return target.api, _raw(random, target, b"POST /jobs/x/retry", body)


_KINDS: dict[str, Callable[[Random, Target], tuple[str, bytes]]] = {
    "path": _path,
    "path_too": _path,
    "headers": _headers,
    "mutated": _body(lambda random, usual: mutated(usual, random)),
    "mutated_too": _body(lambda random, usual: mutated(usual, random)),
    "broken": _body(lambda random, usual: broken(usual, random)),
    "noise_body": _body(lambda random, usual: noise(random)),
    "noise": _noise,
    "large": _large,
}
_HALF = ("headers", "noise")
"""Generators of what may be only the beginning of a request."""
