"""The HTTP clients for requests that are no generations. Each purpose has a client and a pool of connections of its
own, so that none waits for another: a health check behind a thousand streams would look like a dead server."""

from __future__ import annotations

import httpx

# A call may take minutes, such as a sleep that waits for the answers under way.
TIMEOUT = httpx.Timeout(connect=5.0, read=900.0, write=60.0, pool=10.0)
KEEPALIVE_SECONDS = 4.0
"""vLLM and the api service close a connection after 5 s without a request. Close it sooner here, so that no request is
sent on a connection that they are closing."""


def make_client(connections: int, *, keep: bool = True) -> httpx.AsyncClient:
    """A client with at most so many connections at a time. `keep`: they are used again. A health check does without,
    because it must not fail for a connection that the server closed."""
    kept = None if keep else 0
    limits = httpx.Limits(
        max_connections=connections, max_keepalive_connections=kept, keepalive_expiry=KEEPALIVE_SECONDS
    )
    return httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False, follow_redirects=False)
