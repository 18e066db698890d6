"""An HTTP proxy that loses answers, as a network does that falls silent: the client waits for one in vain."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

LOSE = "x-lose-first-answer"
"""The header by which a request asks for that. Its value is the same for all tries of a request, and no other's."""
OWN_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "content-encoding", "accept-encoding", LOSE}


@contextmanager
def losing_first_answers(url: str) -> Iterator[str]:
    """The address of a proxy before `url`. It hands each request on. Where the header says so, it reads the answer to
    the first try and says nothing until the client hangs up."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(url.rstrip("/")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(url: str) -> type[BaseHTTPRequestHandler]:
    seen, lock = set[str](), threading.Lock()

    def is_first(request: str | None) -> bool:
        with lock:
            first = request is not None and request not in seen
            if first:
                seen.add(str(request))
        return first

    class Handler(BaseHTTPRequestHandler):
        timeout = 60

        def _forward(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in OWN_HEADERS}
            answer = httpx.request(self.command, url + self.path, content=content, headers=headers, timeout=60)
            with suppress(ConnectionError):  # a client that has waited for too long has hung up
                self._answer(answer)

        def _answer(self, answer: httpx.Response) -> None:
            if is_first(self.headers.get(LOSE)):
                self.close_connection = True
                self.connection.recv(1)  # the end of the connection
                return
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in OWN_HEADERS:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_DELETE = _forward

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: the suite says what went wrong."""

    return Handler
