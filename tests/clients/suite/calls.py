"""One way to call a sync and an async client of any version."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import uuid
from types import SimpleNamespace
from urllib.parse import quote

import openai

UNIQUE = uuid.uuid4().hex[:8]
"""Of this run, so that its data are nobody else's."""
PATIENCE = 60.0


class Left(Exception):
    """This version of the client does not have the call."""


def rows(count: int, salt: str = "") -> bytes:
    """A training file of `count` chats, different for each `salt`."""
    lines = [
        {
            "messages": [
                {"role": "system", "content": "You answer briefly."},
                {"role": "user", "content": f"{UNIQUE} {salt}: what is {number} plus {number}?"},
                {"role": "assistant", "content": f"It is {number + number}."},
            ]
        }
        for number in range(count)
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class Calls:
    """The client, and ways to call it. Sync and async clients are called alike: `now` awaits what has to be awaited."""

    def __init__(self, mode: str, base_url: str, api_key: str, lossy_url: str) -> None:
        self.asynchronous = mode == "async"
        self.url, self.key, self.lossy_url = base_url, api_key, lossy_url
        self.client = self.connect()

    def connect(self, **options):
        kind = openai.AsyncOpenAI if self.asynchronous else openai.OpenAI
        return kind(**{"base_url": self.url, "api_key": self.key, **options})

    async def now(self, value):
        return await value if inspect.isawaitable(value) else value

    async def together(self, *calls):
        """What `calls` answer, which are made at once: by tasks, or by threads."""
        if self.asynchronous:
            return await asyncio.gather(*(call() for call in calls))
        return await asyncio.gather(*(asyncio.to_thread(call) for call in calls))

    async def all(self, page):
        """Every item of a list, page by page to the end, each of them once."""
        found = [item async for item in page] if self.asynchronous else list(page)
        ids = [item.id for item in found]
        assert len(ids) == len(set(ids)), ids
        return found

    async def refused(self, kind, call):
        """The error that `call` must raise."""
        try:
            await self.now(call())
        except kind as error:
            assert error.body and error.body.get("message"), error.body
            return error
        raise AssertionError(f"no {kind.__name__}")

    async def until(self, condition, what: str, seconds: float = PATIENCE):
        """What `condition` gives, once that is true."""
        deadline = time.monotonic() + seconds
        while not (found := await condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            await asyncio.sleep(0.2)
        return found

    def find(self, path: str, client=None):
        """The member `path` of the client; None: this version has none."""
        found = client or self.client
        for name in path.split("."):
            found = getattr(found, name, None)
        return found

    def has(self, path: str):
        """The member `path` of the client."""
        if (found := self.find(path)) is None:
            raise Left(path)
        return found

    async def ask(self, member: str, route: str, *names: str, client=None, **body):
        """Call the method `member`, or in versions that lack it its `route`, such as `POST /things/{0}`."""
        client = client or self.client
        if method := self.find(member, client):
            return await self.now(method(*names, **body))
        verb, path = route.split()
        return await self.send(verb, path.format(*(quote(name, safe=":") for name in names)), client=client, **body)

    async def send(self, verb: str, path: str, *, client=None, **body):
        """A request that the client has no method for."""
        options = {"cast_to": object, **({"body": body} if body else {})}
        answer = await self.now(getattr(client or self.client, verb.lower())(path, **options))
        return json.loads(json.dumps(answer), object_hook=lambda fields: SimpleNamespace(**fields))
