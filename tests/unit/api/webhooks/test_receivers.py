"""Where webhooks may be sent, when an endpoint is made and again when something is sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.api.domain.addresses import BadTarget, is_refused, target_of
from services.api.webhooks.receivers import NoAnswer, Receivers
from tests.support.certificates import Authority, server_context
from tests.unit.api.webhooks.world import Receiver


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ],
)
def test_what_only_this_machine_may_ask_is_always_refused(address: str) -> None:
    assert is_refused(address, private=True)
    assert is_refused(address, private=False)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd12::1", "::ffff:127.0.0.1",
     "64:ff9b::7f00:1", "2002:7f00:1::1", "::ffff:10.0.0.1"],
)  # fmt: skip
def test_networks_of_ones_own_are_allowed_unless_a_setting_refuses_them(address: str) -> None:
    assert not is_refused(address, private=True)
    assert is_refused(address, private=False)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"])
def test_the_internet_is_allowed(address: str) -> None:
    assert not is_refused(address, private=True)
    assert not is_refused(address, private=False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "/hook",
        "file:///etc/passwd",
        "gopher://example.com/",
        "http:///hook",
        "http://:80/",
        "http://user:secret@example.com/",
        "http://a@169.254.169.254/",
        "http://example.com\\@169.254.169.254/",
        "http://example.com/a b",
        "http://example.com/\r\nx: y",
        "http://exämple.com/",
        "http://example.com/#part",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://[::1",
        "http://[fe80::1%25eth0]/",
        "http://example.com/" + "a" * 2048,
    ],
)
def test_what_is_no_address_of_a_receiver(url: str) -> None:
    with pytest.raises(BadTarget):
        target_of(url)


def test_the_parts_of_a_url() -> None:
    assert target_of("https://Example.com/a?b=c") == ("https", "example.com", 443, "/a?b=c", "Example.com")
    assert target_of("http://[::1]:8000") == ("http", "::1", 8000, "/", "[::1]:8000")


class Names:
    """A name service whose answers a test sets."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] = addresses

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        if not self.addresses:
            raise OSError("not known")
        return self.addresses


async def test_a_name_is_connected_to_at_the_address_that_was_checked(receiver: Receiver) -> None:
    url = receiver.url.replace("127.0.0.1", "hooks.example.com")
    assert await Receivers(resolve=Names("127.0.0.1")).post(url, b"{}", {"webhook-id": "x"}) == 204
    assert receiver.got[0].headers["host"].startswith("hooks.example.com:")


async def test_of_several_addresses_the_next_one_is_tried(receiver: Receiver) -> None:
    url = receiver.url.replace("127.0.0.1", "hooks.example.com")
    names = Names("127.0.0.2", "127.0.0.1")  # nobody listens at the first one
    assert await Receivers(resolve=names).post(url, b"{}", {"webhook-id": "x"}) == 204


async def test_a_name_that_leads_elsewhere_later_is_refused_then(receiver: Receiver) -> None:
    url = receiver.url.replace("127.0.0.1", "hooks.example.com")
    names = Names("127.0.0.1")
    receivers = Receivers(resolve=names)
    await receivers.check(url)
    for addresses in (["169.254.169.254"], ["127.0.0.1", "169.254.169.254"]):
        names.addresses = addresses
        with pytest.raises(NoAnswer, match="refused"):
            await receivers.post(url, b"{}", {"webhook-id": "x"})
    assert not receiver.got


async def test_a_name_that_is_not_known_yet_may_be_given_and_cannot_be_reached() -> None:
    receivers = Receivers(resolve=Names())
    await receivers.check("https://hooks.example.com/")
    with pytest.raises(NoAnswer, match="not known"):
        await receivers.post("https://hooks.example.com/", b"{}", {})


async def test_a_setting_refuses_networks_of_ones_own(receiver: Receiver) -> None:
    receivers = Receivers(private=False)
    with pytest.raises(BadTarget, match="TUNESTREAM_WEBHOOKS__PRIVATE_ADDRESSES"):
        await receivers.check(receiver.url)
    with pytest.raises(NoAnswer, match="refused"):
        await receivers.post(receiver.url, b"{}", {"webhook-id": "x"})
    assert not receiver.got


async def test_what_does_not_speak_http_gives_no_answer(receiver: Receiver) -> None:
    with pytest.raises(NoAnswer, match="connection"):
        await Receivers().post(receiver.url.replace("http:", "https:"), b"{}", {})


async def test_over_https_the_certificate_has_to_be_that_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    context = server_context(authority.issue("hooks.example.com"))
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        receivers = Receivers(resolve=Names("127.0.0.1"))
        with pytest.raises(NoAnswer, match="certificate"):
            await receivers.post(f"https://hooks.example.com:{port}/", b"{}", {})  # an authority that nobody knows
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        assert await receivers.post(f"https://hooks.example.com:{port}/", b"{}", {}) == 204
        with pytest.raises(NoAnswer, match="certificate"):
            await receivers.post(f"https://other.example.com:{port}/", b"{}", {})


async def test_a_receiver_that_answers_without_end_is_not_read() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n" + b"x" * 100)
        await reader.read()
        writer.close()

    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while not writer.is_closing():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)

    for handle, taken in ((endless, True), (dripping, False)):
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        if taken:
            assert await Receivers().post(url, b"{}", {}) == 200
        else:
            with pytest.raises(NoAnswer, match="no answer within"):
                await Receivers(limit_seconds=0.3).post(url, b"{}", {})
        server.close()
