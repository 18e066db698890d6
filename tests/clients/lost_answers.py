"""An HTTP proxy that loses answers: the first one to each new job, as a network does that breaks in the middle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

NEW_JOB = "/fine_tuning/jobs"
OWN_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "content-encoding", "accept-encoding"}


@contextmanager
def losing_first_answers(url: str) -> Iterator[str]:
    """The address of a proxy before `url`. It hands each request on; the answer to the first try at a new job is read,
    and the client gets none."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(url.rstrip("/")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(url: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in OWN_HEADERS}
            answer = httpx.request(self.command, url + self.path, content=content, headers=headers, timeout=60)
            first = self.headers.get("x-stainless-retry-count") in (None, "0")
            if self.command == "POST" and self.path == NEW_JOB and first:
                self.close_connection = True
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
