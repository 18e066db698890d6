"""The client for generations: it sends a request to vLLM, and reads the answer as it comes.

It is aiohttp, because httpx scans its whole pool for every request, and spends over ten times the CPU time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import aiohttp
import httpx
from aiohttp import ClientTimeout

from services.inference.vllm.clients import KEEPALIVE_SECONDS

# A generation may think for minutes before its first byte; the official client itself gives up after 600 s.
TIMEOUT = ClientTimeout(total=None, connect=None, sock_connect=5.0, sock_read=900.0)


class UpstreamBroken(Exception):
    """The connection to vLLM failed, or the answer was cut off or is no HTTP."""


class UpstreamTimeout(Exception):
    """vLLM sent nothing for longer than a generation may think."""


class Upstream:
    """An answer of vLLM, whose first chunk has come. If the connection breaks from now on, the client sees it.
    `close` must be called."""

    def __init__(self, response: aiohttp.ClientResponse, first: bytes) -> None:
        self.status = response.status
        self.content_type = response.headers.get("content-type", "application/json")
        self._response = response
        self._first = first

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises UpstreamBroken or UpstreamTimeout."""
        chunk = self._first
        while chunk:
            yield chunk
            chunk = await _read(self._response)

    async def body(self) -> bytes:
        """The whole body. Raises UpstreamBroken or UpstreamTimeout."""
        content = self._first
        while not self._response.content.at_eof() and (chunk := await _read(self._response)):
            content += chunk
        return content

    def close(self) -> None:
        """Give the connection back, or close it if the answer has not come to its end."""
        self._response.close()


class GenerationClient:
    """Connections to vLLM for generations alone. How many there are at a time is limited by who asks."""

    def __init__(self, *, tls: bool) -> None:
        """`tls`: the server is reached by https."""
        # the same trusted certificates as for all other requests
        verified = httpx.create_ssl_context(trust_env=False) if tls else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ssl=verified),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=TIMEOUT,
            auto_decompress=False,
            skip_auto_headers=("user-agent", "accept"),
        )

    async def open(self, url: str, content: bytes, headers: Mapping[str, str]) -> Upstream:
        """Send a request and wait for the first chunk of its answer.

        Raises:
            UpstreamBroken, UpstreamTimeout
        """
        try:
            response = await self._session.post(url, data=content, headers=headers, allow_redirects=False)
        except TimeoutError as error:
            # refused or unreachable within the time to connect is as good as broken
            raise (UpstreamBroken if isinstance(error, aiohttp.ConnectionTimeoutError) else UpstreamTimeout) from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamBroken from error
        try:
            return Upstream(response, await _read(response))
        except BaseException:
            response.close()
            raise

    async def close(self) -> None:
        await self._session.close()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The next chunk; empty at the end."""
    try:
        return await response.content.readany()
    except TimeoutError:
        raise UpstreamTimeout from None
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamBroken from error
