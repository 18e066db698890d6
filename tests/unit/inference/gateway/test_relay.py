"""An answer releases its resources, however sending it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Scope

from services.inference.gateway.relay import ScopedResponse

SCOPE: Scope = {"type": "http", "asgi": {"spec_version": "2.4"}}


class TrackedAnswer:
    """An answer of two chunks that counts its open resources."""

    def __init__(self) -> None:
        self.open = 0

    async def answer(self, stack: AsyncExitStack) -> Response:
        self.open += 1
        stack.push_async_callback(self._close)
        return StreamingResponse(self._chunks())

    async def _chunks(self) -> AsyncIterator[bytes]:
        for chunk in (b"one", b"two"):
            assert self.open == 1
            yield chunk

    async def _close(self) -> None:
        self.open -= 1


async def receive() -> Message:
    raise AssertionError("not asked for")


@pytest.mark.parametrize("sent", [0, 1, 2])
async def test_a_client_that_hangs_up_leaves_nothing_open(sent: int) -> None:
    tracked, messages = TrackedAnswer(), list[Message]()

    async def send(message: Message) -> None:
        if len(messages) == sent:
            raise OSError("the connection is closed")
        messages.append(message)

    with pytest.raises(ClientDisconnect):
        await ScopedResponse(tracked.answer)(SCOPE, receive, send)

    assert (tracked.open, len(messages)) == (0, sent)


async def test_an_answer_that_was_sent_leaves_nothing_open() -> None:
    tracked, messages = TrackedAnswer(), list[Message]()

    async def send(message: Message) -> None:
        messages.append(message)

    await ScopedResponse(tracked.answer)(SCOPE, receive, send)

    assert tracked.open == 0
    assert b"".join(message.get("body", b"") for message in messages) == b"onetwo"


async def test_an_answer_that_is_never_sent_opens_nothing() -> None:
    tracked = TrackedAnswer()
    ScopedResponse(tracked.answer)
    assert tracked.open == 0
