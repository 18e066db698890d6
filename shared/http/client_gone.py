"""Work for a client that may hang up before it is answered."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

CLIENT_GONE = 499
"""nginx's status for a client that hung up. It is only counted, because nobody receives it."""


class ClientGone(Exception):
    """The client has hung up, so there is nobody to answer."""


class UntilGone:
    """A block that ends with `ClientGone` when the client hangs up. The request's body must have been read.

    It cancels the task that runs the block, as `asyncio.timeout` does: a task for the work and one for the watch would
    cost as much as the request itself.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._watch = asyncio.create_task(self._wait())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.cancel()
        if self._gone and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientGone from None

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()
