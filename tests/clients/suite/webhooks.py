"""Webhooks: the endpoints, and what arrives at a receiver, verified by the client itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
from calls import UNIQUE, Calls, Left

TYPES = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]
ROUTE = "/webhook_endpoints"


class Receiver:
    """An HTTP server that keeps what it is sent, as headers and body."""

    def __init__(self) -> None:
        self.taken: list[tuple[dict[str, str], str]] = []
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[Receiver]:
        taken = self.taken

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/hook"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class Webhooks(Calls):
    receiver = Receiver()
    endpoint = None

    async def webhook_endpoints(self) -> None:
        """Made, listed to the end, changed, tested, deleted."""
        create = "webhooks.create", f"POST {ROUTE}"
        made = [
            await self.ask(*create, name=f"{UNIQUE} {n}", url=self.receiver.url, event_types=TYPES[:1])
            for n in range(2)
        ]
        self.endpoint, second = made
        assert self.endpoint.signing_secret.startswith("whsec_"), self.endpoint
        found = await self.ask("webhooks.retrieve", f"GET {ROUTE}/{{0}}", second.id)
        assert (found.id, found.url) == (second.id, self.receiver.url)
        assert {each.id for each in made} <= {each.id for each in await self.endpoints()}
        changed = await self.ask("webhooks.update", f"POST {ROUTE}/{{0}}", second.id, name="changed")
        assert changed.name == "changed" and changed.url == self.receiver.url, changed
        types = await self.ask("webhooks.event_types.list", "GET /webhook_event_types")
        assert set(TYPES) <= set(types.data), types
        gone = await self.ask("webhooks.delete", f"DELETE {ROUTE}/{{0}}", second.id)
        assert gone.deleted and second.id not in {each.id for each in await self.endpoints()}
        retrieve = "webhooks.retrieve", f"GET {ROUTE}/{{0}}", second.id
        await self.refused(openai.NotFoundError, lambda: self.ask(*retrieve))

    async def endpoints(self) -> list:
        if method := self.find("webhooks.list"):
            return await self.all(method(limit=1))
        return (await self.send("GET", f"{ROUTE}?limit=100")).data

    async def webhook_signatures(self) -> None:
        """Samples, before and after the secret was replaced (an empty body asks for that): each is verified with its
        own secret, and with no other."""
        first, old = await self.sample(), self.endpoint.signing_secret
        route = "webhooks.rotate_secret", f"POST {ROUTE}/{{0}}/rotate_secret"
        self.endpoint = await self.ask(*route, self.endpoint.id)
        second, new = await self.sample(), self.endpoint.signing_secret
        if (unwrap := self.find("webhooks.unwrap")) is None:
            raise Left("webhooks.unwrap; the samples arrived")
        for (headers, body), secret in ((first, old), (second, new)):
            event = await self.now(unwrap(body, headers, secret=secret))
            assert event.type == TYPES[0] and event.data.id.startswith("ftjob-"), event
        headers, body = second
        for secret, sent in ((old, body), (new, body + " ")):
            try:
                await self.now(unwrap(sent, headers, secret=secret))
            except openai.InvalidWebhookSignatureError:
                continue
            raise AssertionError("a wrong signature was taken")

    async def sample(self) -> tuple[dict[str, str], str]:
        """The headers and the body of a sample that is asked for now."""
        known = len(self.receiver.taken)
        route = "webhooks.test", f"POST {ROUTE}/{{0}}/test", self.endpoint.id
        answer = await self.ask(*route, event_type=TYPES[0])
        assert answer.status_code == 200, answer
        return self.receiver.taken[known:][0]

    async def a_webhook_of_the_job(self) -> None:
        """The end of the run's own job arrives, under one id however often."""

        async def arrived():
            return [each for each in self.receiver.taken if json.loads(each[1])["data"]["id"] == self.own.id]

        taken = await self.until(arrived, "a webhook of the job")
        assert len({headers["webhook-id"] for headers, _ in taken}) == 1
        headers, body = taken[0]
        assert json.loads(body)["type"] == TYPES[0]
        await self.ask("webhooks.delete", f"DELETE {ROUTE}/{{0}}", self.endpoint.id)
        if (unwrap := self.find("webhooks.unwrap")) is None:
            raise Left("webhooks.unwrap; the event arrived")
        assert (await self.now(unwrap(body, headers, secret=self.endpoint.signing_secret))).data.id == self.own.id
