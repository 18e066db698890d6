"""The causes for which Kafka refuses a connection, found by real handshakes with a fake broker that knows only the
first steps."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError, TopicAuthorizationFailedError

from shared.errors import ConfigError
from shared.kafka import diagnosis as kafka_diagnosis
from shared.kafka.bus import Bus
from shared.kafka.diagnosis import Cause, find_cause
from shared.kafka.security import client_options
from shared.kafka.topics import create_topics
from shared.settings import BusSettings
from tests.support.certificates import Authority, server_context

API_VERSIONS, HANDSHAKE, AUTHENTICATE = 18, 17, 36
UNSUPPORTED_MECHANISM, ILLEGAL_STATE, AUTHENTICATION_FAILED = 33, 34, 58


@asynccontextmanager
async def broker(*, tls: ssl.SSLContext | None = None, mechanism: str | None = None) -> AsyncIterator[str]:
    """Knows versions and the steps of SASL, where every password is wrong; closes the connection on all else."""

    def answer(api: int) -> bytes | None:
        if api == API_VERSIONS:
            known = [(API_VERSIONS, 0, 0), (HANDSHAKE, 1, 1), (AUTHENTICATE, 0, 0)]
            return struct.pack(">hi", 0, len(known)) + b"".join(struct.pack(">hhh", *one) for one in known)
        if api == HANDSHAKE and mechanism is None:
            return struct.pack(">hi", ILLEGAL_STATE, 0)
        if api == HANDSHAKE:
            return struct.pack(f">hih{len(mechanism)}s", 0, 1, len(mechanism), mechanism.encode())
        if api == AUTHENTICATE:
            return struct.pack(">hhi", AUTHENTICATION_FAILED, -1, 0)
        return None

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = struct.unpack(">i", await reader.readexactly(4))[0]
                if size > 1_000_000:  # a TLS hello: Kafka too hangs up on it
                    return
                api, _, correlation = struct.unpack(">hhi", (await reader.readexactly(size))[:8])
                if (body := answer(api)) is None:
                    return
                writer.write(struct.pack(">ii", len(body) + 4, correlation) + body)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def cause(settings: BusSettings) -> Cause | None:
    return await find_cause(settings, KafkaConnectionError("Unable to bootstrap"))


async def line(settings: BusSettings) -> str:
    found = await cause(settings)
    assert found is not None
    assert found.patience_seconds == 0, "waiting does not mend it"
    return found.line


def sasl(address: str, ca: Path | None, **more: str) -> BusSettings:
    return BusSettings.model_validate(
        {
            "bootstrap": address,
            "security_protocol": "SASL_SSL" if ca else "SASL_PLAINTEXT",
            "sasl_username": "trainer",
            "sasl_password": "canary",
            "ca_file": ca,
            **more,
        }
    )


# --- credentials --------------------------------------------------------------------------------------------------


async def test_a_wrong_password_names_the_user_and_the_settings(authority: Authority) -> None:
    async with broker(tls=server_context(authority.issue()), mechanism="SCRAM-SHA-512") as address:
        found = await cause(sasl(address, authority.ca))
    assert found is not None
    assert found.line == (
        f"Kafka at {address} refuses the user 'trainer' (TUNESTREAM_BUS__SASL_USERNAME, "
        "TUNESTREAM_BUS__SASL_PASSWORD): wrong password, or the user does not exist"
    )
    assert found.patience_seconds > 0, "an init step may be about to make the user"


async def test_a_service_waits_for_its_user_and_then_stops_with_that_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kafka_diagnosis, "CREDENTIALS_SECONDS", 0.4)
    async with broker(mechanism="SCRAM-SHA-512") as address:
        bus = Bus(sasl(address, None), "trainer")
        try:
            with pytest.raises(ConfigError, match="refuses the user 'trainer'"):
                await bus.start()
        finally:
            await bus.stop()
    assert [record for record in caplog.records if record.name == "shared.kafka.bus"], "it was tried again"
    assert "canary" not in caplog.text


async def test_an_unknown_mechanism_is_named() -> None:
    async with broker(mechanism="PLAIN") as address:
        assert await line(sasl(address, None)) == (
            f"Kafka at {address} does not take TUNESTREAM_BUS__SASL_MECHANISM (SCRAM-SHA-512): name another"
        )


async def test_a_listener_that_wants_a_user_says_so() -> None:
    async with broker(mechanism="PLAIN") as address:
        assert "wants a user and password here: set TUNESTREAM_BUS__SECURITY_PROTOCOL" in await line(
            BusSettings(bootstrap=address)
        )


async def test_a_listener_that_takes_no_user_says_so() -> None:
    async with broker() as address:
        assert "takes no user and password here: set TUNESTREAM_BUS__SECURITY_PROTOCOL" in await line(
            sasl(address, None)
        )


# --- TLS ----------------------------------------------------------------------------------------------------------


async def test_a_certificate_of_another_ca(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other").ca
    async with broker(tls=server_context(authority.issue())) as address:
        assert await line(sasl(address, other)) == (
            f"the certificate of Kafka at {address} is not signed by a CA in TUNESTREAM_BUS__CA_FILE ({other})"
        )


async def test_an_expired_certificate_names_the_day(authority: Authority) -> None:
    expired = authority.issue(until=datetime(2026, 1, 1, 12, tzinfo=UTC))
    async with broker(tls=server_context(expired)) as address:
        assert await line(sasl(address, authority.ca)) == (
            f"the certificate of Kafka at {address} expired on 2026-01-01: renew it there"
        )


async def test_a_certificate_for_another_name(authority: Authority) -> None:
    async with broker(tls=server_context(authority.issue("127.0.0.2"))) as address:
        assert f"the certificate of Kafka at {address} is not for the name 127.0.0.1" in await line(
            sasl(address, authority.ca)
        )


async def test_a_client_without_tls_at_a_listener_with_it(authority: Authority) -> None:
    async with broker(tls=server_context(authority.issue())) as address:
        assert await line(BusSettings(bootstrap=address)) == (
            f"Kafka at {address} speaks TLS here: set TUNESTREAM_BUS__SECURITY_PROTOCOL (PLAINTEXT) to SASL_SSL or "
            "SSL, or use another port"
        )


async def test_a_client_with_tls_at_a_listener_without_it(authority: Authority) -> None:
    async with broker() as address:
        assert f"Kafka at {address} speaks no TLS here" in await line(sasl(address, authority.ca))


async def test_a_certificate_of_ours_that_the_broker_does_not_trust(authority: Authority, tmp_path: Path) -> None:
    strict = server_context(authority.issue())
    strict.verify_mode = ssl.CERT_REQUIRED
    strict.load_verify_locations(authority.ca)
    strict.maximum_version = ssl.TLSVersion.TLSv1_2  # later ones refuse only after the handshake
    ours = Authority(tmp_path, "other").issue()
    # not asyncio's server: it hangs up without saying why
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def refuse() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(ssl.SSLError):
                strict.wrap_socket(connection, server_side=True)

        refusing = asyncio.create_task(asyncio.to_thread(refuse))
        settings = BusSettings(
            bootstrap=address, security_protocol="SSL", ca_file=authority.ca, cert_file=ours, key_file=ours
        )
        found = await line(settings)
        await refusing
    assert f"Kafka at {address} refuses TUNESTREAM_BUS__CERT_FILE ({ours})" in found


async def test_a_service_stops_at_once_when_the_certificate_is_refused(authority: Authority, tmp_path: Path) -> None:
    async with broker(tls=server_context(authority.issue())) as address:
        bus = Bus(sasl(address, Authority(tmp_path, "other").ca), "trainer")
        async with asyncio.timeout(5):
            try:
                with pytest.raises(ConfigError, match="TUNESTREAM_BUS__CA_FILE"):
                    await bus.start()
            finally:
                await bus.stop()


async def test_the_admin_client_uses_tls_too(authority: Authority) -> None:
    """The client completes the handshake, and fails at the first request that the fake broker does not know."""
    async with broker(tls=server_context(authority.issue())) as address:
        settings = BusSettings(bootstrap=address, security_protocol="SSL", ca_file=authority.ca)
        with pytest.raises(KafkaConnectionError):
            await create_topics(settings)
        assert await cause(settings) is None


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not PEM")
    with pytest.raises(ConfigError, match=r"TUNESTREAM_BUS__CA_FILE: .*ca\.pem holds no certificate in PEM"):
        client_options(BusSettings(security_protocol="SSL", ca_file=tmp_path / "ca.pem"))


def test_a_key_that_does_not_belong_to_the_certificate_is_named(authority: Authority) -> None:
    one, other = authority.issue(), authority.issue()
    with pytest.raises(ConfigError, match="TUNESTREAM_BUS__KEY_FILE"):
        client_options(BusSettings(security_protocol="SSL", cert_file=one, key_file=other))


def test_host_names_are_verified() -> None:
    context = client_options(BusSettings(security_protocol="SSL"))["ssl_context"]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


# --- what may pass by itself, and what ACLs deny ------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:9092"])
async def test_a_broker_that_is_down_has_no_cause(address: str) -> None:
    assert await cause(BusSettings(bootstrap=address)) is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TopicAuthorizationFailedError("job.control"), "use the topic job.control"),
        (TopicAuthorizationFailedError({"b", "a"}), "use the topic a, b"),
        (GroupAuthorizationFailedError("trainer.job.control"), "join the consumer group trainer.job.control"),
    ],
)
async def test_a_missing_acl_names_the_user_and_what_is_denied(error: Exception, words: str) -> None:
    found = await find_cause(sasl("127.0.0.1:1", None), error)
    assert found is not None and found.patience_seconds > 0
    assert f"the user 'trainer' (TUNESTREAM_BUS__SASL_USERNAME) {words}: add an ACL" in found.line
