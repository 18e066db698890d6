"""How many requests of a client that can wait, such as an evaluation, leave the users of the same server their room."""

from __future__ import annotations

MOST = 128
"""Throughput grows little beyond it: an H100 with a model of 135 million parameters made 4,000 tokens/s of 16 requests
at a time, and 9,500 of 64."""
MOST_ON_A_CPU = 16
"""A CPU has no more to give, and each answer takes as much longer as there are others: of 32 and more, one may run into
the timeout of its client."""


def background_requests(sequences: int | None, *, cpu: bool) -> int | None:
    """The most requests at a time, half of the `sequences` that the server computes at a time: so a request of a user
    always begins at once. None: nothing is known of the server."""
    if sequences is None:
        return None
    return max(1, min(MOST_ON_A_CPU if cpu else MOST, sequences // 2))
