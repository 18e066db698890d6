"""What a service says at its start about an object store that it cannot use, over real TLS."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from shared import service
from shared.errors import ConfigError, StoreUnavailable
from shared.settings import StoreSettings
from shared.store.objects import ObjectStore
from tests.support.certificates import Authority, server_context
from tests.support.environment import without_settings
from tests.support.fakes.servers import serving, unused_port
from tests.support.waiting import until

EMPTY = b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>tunestream</Name></ListBucketResult>'


class Server(ThreadingHTTPServer):
    """An S3 server that has an empty bucket, or answers with one error."""

    error: str | None = None
    asked = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that hang up because they do not trust the certificate: tests want exactly that."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.server.error:
            status = 503 if self.server.error == "SlowDown" else 403
            body = f"<Error><Code>{self.server.error}</Code><BucketName>tunestream</BucketName></Error>".encode()
        else:
            status, body = 200, EMPTY
        self.send_response(status)
        self.send_header("content-type", "application/xml")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(tls: ssl.SSLContext | None = None, error: str | None = None) -> Iterator[tuple[Server, int]]:
    server = Server(("127.0.0.1", 0), Handler)
    server.error = error
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield server, server.server_address[1]


def settings(scheme: str, port: int, ca: Path | None = None) -> StoreSettings:
    return StoreSettings(endpoint=f"{scheme}://127.0.0.1:{port}", ca_file=ca)


async def refusal(store: StoreSettings) -> str:
    with pytest.raises(ConfigError) as caught:
        await ObjectStore.connect(store).check()
    assert store.secret_key.get_secret_value() not in str(caught.value)
    return str(caught.value)


# --- TLS ----------------------------------------------------------------------------------------------------------


async def test_a_certificate_of_the_given_ca_is_accepted(authority: Authority) -> None:
    with served(server_context(authority.issue())) as (_, port):
        await ObjectStore.connect(settings("https", port, authority.ca)).check()


async def test_a_certificate_of_another_ca(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other").ca
    with served(server_context(authority.issue())) as (server, port):
        assert await refusal(settings("https", port, other)) == (
            f"the certificate of the object store at https://127.0.0.1:{port} (TUNESTREAM_STORE__ENDPOINT) is not "
            f"signed by a CA in TUNESTREAM_STORE__CA_FILE ({other})"
        )
        assert server.asked == 0, "nothing was said to a server that may be another"


async def test_an_expired_certificate_names_the_day(authority: Authority) -> None:
    expired = authority.issue(until=datetime(2026, 1, 1, 12, tzinfo=UTC))
    with served(server_context(expired)) as (_, port):
        assert "expired on 2026-01-01: renew it there" in await refusal(settings("https", port, authority.ca))


async def test_a_certificate_that_expires_while_the_service_runs_is_not_an_outage(authority: Authority) -> None:
    expired = authority.issue(until=datetime(2026, 1, 1, 12, tzinfo=UTC))
    with served(server_context(expired)) as (_, port), pytest.raises(ConfigError, match="expired on 2026-01-01"):
        await ObjectStore.connect(settings("https", port, authority.ca)).get("jobs/x/job.json")


async def test_a_certificate_for_another_name(authority: Authority) -> None:
    with served(server_context(authority.issue("127.0.0.2"))) as (_, port):
        assert "is not for the name 127.0.0.1" in await refusal(settings("https", port, authority.ca))


async def test_https_to_a_server_without_tls() -> None:
    with served() as (_, port):
        assert await refusal(settings("https", port)) == (
            f"the object store at https://127.0.0.1:{port} (TUNESTREAM_STORE__ENDPOINT) speaks no TLS: give its "
            "address with http://"
        )


async def test_http_to_a_server_with_tls(authority: Authority) -> None:
    with served(server_context(authority.issue())) as (_, port):
        assert await refusal(settings("http", port)) == (
            f"the object store at http://127.0.0.1:{port} (TUNESTREAM_STORE__ENDPOINT) speaks TLS: give its address "
            "with https://"
        )


async def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not PEM")
    with pytest.raises(ConfigError, match="TUNESTREAM_STORE__CA_FILE"):
        ObjectStore.connect(settings("https", 1, tmp_path / "ca.pem"))


# --- what the store answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("InvalidAccessKeyId", "knows no access key 'tunestream' (TUNESTREAM_STORE__ACCESS_KEY)"),
        ("SignatureDoesNotMatch", "refuses TUNESTREAM_STORE__SECRET_KEY"),
        ("NoSuchBucket", "has no bucket 'tunestream' (TUNESTREAM_STORE__SYSTEM_BUCKET): create it, or name another"),
        ("AccessDenied", "denies the access key 'tunestream' (TUNESTREAM_STORE__ACCESS_KEY)"),
    ],
)
async def test_a_refusal_names_its_setting(code: str, words: str) -> None:
    with served(error=code) as (_, port):
        assert words in await refusal(settings("http", port))


async def test_a_bucket_that_no_store_can_have_is_a_wrong_setting() -> None:
    with served() as (server, port):
        store = settings("http", port).model_copy(update={"system_bucket": "my bucket"})
        assert "'my bucket' (TUNESTREAM_STORE__*_BUCKET) cannot be used" in await refusal(store)
        assert server.asked == 0


async def test_a_store_that_starts_is_waited_for() -> None:
    with served(error="SlowDown") as (server, port):
        objects = ObjectStore.connect(settings("http", port))
        with pytest.raises(StoreUnavailable):
            await objects.check()
        reaching = asyncio.create_task(service.wait_for_store(objects))
        tried = server.asked
        await until(lambda: server.asked > tried, "it asks again")
        assert not reaching.done()
        server.error = None
        await reaching


async def test_a_store_that_is_down_does_not_count_as_a_wrong_setting() -> None:
    for scheme in ("http", "https"):
        with pytest.raises(StoreUnavailable):
            await ObjectStore.connect(settings(scheme, 1)).check()


# --- a whole service ----------------------------------------------------------------------------------------------


def run(*, endpoint: str, health_port: int = 0, **variables: str) -> subprocess.Popen[str]:
    named = {"STORE__ENDPOINT": endpoint, "HEALTH__PORT": str(health_port), **variables}
    return subprocess.Popen(
        [sys.executable, "-m", "services.ingest"],
        env=without_settings(os.environ) | {f"TUNESTREAM_{name}": value for name, value in named.items()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_service_stops_with_one_line_and_a_code_that_says_not_to_restart_it(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other").ca
    with served(server_context(authority.issue())) as (_, port):
        process = run(endpoint=f"https://127.0.0.1:{port}", STORE__CA_FILE=str(other))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == service.EXIT_CONFIG
    lines = errors.strip().splitlines()
    assert lines[-1].startswith("tunestream ingest: the certificate of the object store at")
    assert "TUNESTREAM_STORE__CA_FILE" in lines[-1]
    assert "Traceback" not in errors


async def test_a_service_whose_store_is_down_lives_and_waits() -> None:
    port = unused_port()
    process = run(endpoint="http://127.0.0.1:1", health_port=port)

    def status(path: str) -> int:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health/{path}").status_code
        except httpx.TransportError:
            return 0

    try:
        await until(lambda: status("live") == 200, "the service is alive", 60)
        assert status("ready") == 503
    finally:
        process.terminate()
        _, errors = await asyncio.to_thread(process.communicate, timeout=30)
    assert process.returncode == 0, errors
