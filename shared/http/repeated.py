"""What a client says of a request that it sends again."""

from __future__ import annotations

from starlette.requests import HTTPConnection


def is_repeated(request: HTTPConnection) -> bool:
    """Whether the official client says that this is not its first try: the answer to that may have been lost."""
    count = request.headers.get("x-stainless-retry-count", "").strip()
    return count.isascii() and count.isdigit() and int(count[:9]) > 0
