"""Sends one webhook to one address, and nowhere else: the address that was checked is the one that is connected to, and
no redirect is followed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address

import httpx

from services.api.domain.addresses import BadTarget, Target, is_refused, target_of

LIMIT_SECONDS = 10.0
"""A receiver has so long to answer."""
LOOK_UP_SECONDS = 5.0

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The IP addresses of a host, by name and port. Raises OSError if there are none."""


class NoAnswer(Exception):
    """A receiver gave no answer; the text says why, in one line, and holds nothing of the receiver's."""


async def resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Receivers:
    """Whatever listens at the URLs of endpoints. Proxies of the environment are not used: one would look up the host
    by itself, behind the check."""

    def __init__(
        self, *, private: bool = True, resolve: Resolve = resolve, limit_seconds: float = LIMIT_SECONDS
    ) -> None:
        """`private`: whether loopback and private networks are allowed."""
        self._private = private
        self._resolve = resolve
        self._limit_seconds = limit_seconds

    async def check(self, url: str) -> None:
        """Check that webhooks may be sent to `url`. A host that is not known yet passes: it is checked again whenever
        something is sent.

        Raises:
            BadTarget: they may not.
        """
        target = target_of(url)
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                await self._addresses(target)
        except (OSError, UnicodeError):  # a timeout is an OSError
            return

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send `body`, and return the HTTP status of the answer, whose body is not read.

        Raises:
            NoAnswer: there was none within the limit, or nothing may be sent there.
        """
        try:
            async with asyncio.timeout(self._limit_seconds):
                return await self._post(target_of(url), body, headers)
        except BadTarget as error:
            raise NoAnswer(f"refused: {error}") from None
        except TimeoutError:
            raise NoAnswer(f"no answer within {self._limit_seconds:g} seconds") from None
        except (OSError, UnicodeError):
            raise NoAnswer("the host is not known") from None
        except httpx.ConnectError as error:
            tls = "CERTIFICATE_VERIFY_FAILED" in str(error)
            raise NoAnswer(
                "its certificate is not trusted, or not that of its host" if tls else "no connection"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoAnswer(f"the connection failed ({type(error).__name__})") from None

    async def _post(self, target: Target, body: bytes, headers: Mapping[str, str]) -> int:
        addresses = await self._addresses(target)
        own = {"host": target.authority, "content-type": "application/json", "user-agent": "Tunestream-Webhooks/1"}
        refused: httpx.ConnectError | None = None
        verify = await asyncio.to_thread(ssl.create_default_context) if target.scheme == "https" else False
        async with httpx.AsyncClient(verify=verify, trust_env=False, follow_redirects=False, timeout=None) as client:
            for address in addresses:
                host = f"[{address}]" if ip_address(address).version == 6 else address
                url = f"{target.scheme}://{host}:{target.port}{target.path}"
                sni = {"sni_hostname": target.host}  # the certificate has to be that of the name
                try:
                    sent = client.stream("POST", url, content=body, headers={**own, **headers}, extensions=sni)
                    async with sent as answer:
                        return answer.status_code
                except httpx.ConnectError as error:  # nothing was sent, so the next address may be tried
                    refused = error
        raise refused or OSError("no address")

    async def _addresses(self, target: Target) -> Sequence[str]:
        """Where the host is. If one of its addresses is refused, the host is: it could be chosen at any time."""
        addresses = await self._resolve(target.host, target.port)
        if any(is_refused(address, private=self._private) for address in addresses):
            more = "" if self._private else " or in a private one (TUNESTREAM_WEBHOOKS__PRIVATE_ADDRESSES is false)"
            message = f"its host is in a network that no webhook may reach{more}; give the address of your receiver"
            raise BadTarget(message)
        return [address for address in addresses if "%" not in address]
