"""Whether the endpoint answers. An evaluation whose endpoint is broken leaves its slot to others within seconds, and
comes again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import httpx

from shared.errors import TransientError
from shared.tasks import in_background

T = TypeVar("T")

PATIENCE = 10.0
"""For how many seconds in a row the endpoint may be broken."""
EVERY_SECONDS = 5.0
TIMEOUT = 5.0
SETTING = "TUNESTREAM_INFERENCE__URL"


def named(http: httpx.AsyncClient) -> str:
    """The endpoint of a client, as messages name it: with the setting, and without a password."""
    return f"the endpoint at {http.base_url.copy_with(userinfo=b'')} ({SETTING})"


class Reach:
    """Asks the endpoint of `http` how it is."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = http
        self._timer = timer
        self._sleep = sleep
        root = str(http.base_url).rstrip("/").removesuffix("/v1")
        self._url = f"{root}/health/ready"

    async def check(self) -> None:
        """Look once.

        Raises:
            TransientError: it does not answer, or says that its model server does not.
        """
        if problem := await self._problem():
            raise TransientError(problem)

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is cancelled if the endpoint is broken for longer than `PATIENCE`.

        Raises:
            TransientError: it was.
        """
        async with in_background(work) as working, in_background(self._broken()) as watching:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise TransientError(await watching)
            return await working

    async def _broken(self) -> str:
        """Return what is wrong as soon as that has lasted too long."""
        since = None
        while True:
            await self._sleep(EVERY_SECONDS)
            problem = await self._problem()
            if problem is None:
                since = None
            elif since is None:
                since = self._timer()
            elif self._timer() - since >= PATIENCE:
                return problem

    async def _problem(self) -> str | None:
        """What is wrong, in one line. An endpoint of others that has no such route answers, and that is enough."""
        try:
            response = await self._http.get(self._url, timeout=TIMEOUT)
            if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                problem = response.json()["problems"].get("vllm")
                return f"{named(self._http)} is up, but {problem}" if problem else None
        except httpx.HTTPError as error:
            return f"{named(self._http)} does not answer: {type(error).__name__}"
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
        return None
