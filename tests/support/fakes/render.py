"""A fake of vLLM's render server: real HTTP on loopback in a thread, a real tokenizer, and no parsers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from shared.conversation import ChatTemplate, Unfit
from tests.support.fakes.servers import serving

VERSION = "0.99.0"


class FakeRender:
    """Answers what validate asks of a render server. `template` replaces that of the base."""

    def __init__(self, base: Path, model: str, template: str | None = None) -> None:
        from transformers import AutoTokenizer  # noqa: PLC0415  takes seconds

        self.model = model
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        if template is not None:
            self.tokenizer.chat_template = template
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """Path and body of every request, in the order of their arrival."""
        self.outages = 0
        """How many of the next requests are answered with 503."""
        self.missing: set[str] = set()
        """Routes that this server does not have."""
        self.longest = 10**6
        """The longest prompt that it takes, in tokens."""
        self.tool_parser = True
        self.gives_back: Callable[[dict[str, Any]], dict[str, Any]] = lambda message: message
        """Changes the messages that it makes of tokens."""
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[FakeRender]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(*fake.answer(self.path, {}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self._answer(*fake.answer(self.path, body))

            def _answer(self, status: int, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        with serving(server):
            yield self

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.asked.append((path, body))
        if self.outages > 0:
            self.outages -= 1
            return 503, {}
        if path in self.missing:
            return 404, {"detail": "Not Found"}
        routes: dict[str, Callable[[dict[str, Any]], tuple[int, Any]]] = {
            "/version": lambda _: (200, {"version": VERSION}),
            "/v1/models": lambda _: (200, {"data": [{"id": self.model}]}),
            "/v1/chat/completions/render": self._render,
            "/v1/chat/completions/derender": self._derender,
            "/v1/completions/render": lambda body: self._prompt([self._ids(body["prompt"])]),
            "/v1/completions/derender": lambda body: (
                200,
                {"choices": [{"text": self._text(body["generate_responses"][0])}]},
            ),
        }
        return routes[path](body)

    def _render(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body.get("tools") and body["tool_choice"] == "auto" and not self.tool_parser:
            return _refused('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
        try:
            text = ChatTemplate(self.tokenizer).text(body["messages"], body.get("tools"), prompt=True)
        except Unfit as error:
            return _refused(str(error))
        status, made = self._prompt([self._ids(text)])
        return status, made if status != 200 else made[0]

    def _prompt(self, prompts: list[list[int]]) -> tuple[int, Any]:
        if any(len(ids) > self.longest for ids in prompts):
            return _refused(f"This model's maximum context length is {self.longest} tokens.")
        return 200, [{"token_ids": ids} for ids in prompts]

    def _derender(self, body: dict[str, Any]) -> tuple[int, Any]:
        message = {"role": "assistant", "content": self._text(body["generate_response"]), "reasoning": None}
        return 200, {"choices": [{"message": self.gives_back(message)}]}

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _text(self, generated: dict[str, Any]) -> str:
        return str(self.tokenizer.decode(generated["choices"][0]["token_ids"], skip_special_tokens=False))


def _refused(message: str) -> tuple[int, Any]:
    return 400, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}
