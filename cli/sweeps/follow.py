"""Follow a sweep until it is over, through restarts of the api."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from cli.client import Client, Json, Unreachable
from cli.jobs.follow import OUTAGE_SECONDS
from cli.terminal import CliError

POLL_SECONDS = 1.0


def follow(
    client: Client,
    sweep: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[Json | None, str]]:
    """Yield the sweep every second until it is over, and what is wrong with the api, if something is.

    Raises:
        Unreachable: nothing answered at first, or the api was away for too long.
        NotFound: there is no such sweep.
    """
    known: Json | None = None
    answered = clock()
    while True:
        try:
            known = client.sweep(sweep)
        except Unreachable as error:
            if known is None or clock() - answered > OUTAGE_SECONDS:
                raise
            yield known, f"{error.message}; still trying"
        else:
            answered = clock()
            yield known, ""
            if known.get("finished_at") is not None:
                return
        sleep(POLL_SECONDS)


def failure(sweep: Json) -> CliError:
    """The error of a sweep that did not succeed, in the api's words."""
    if sweep["status"] == "cancelled":
        return CliError(f"{sweep['id']} was cancelled", "the models of trials that had ended can be called")
    error = sweep.get("error") or {}
    return CliError(f"{error.get('code', 'unknown')}: {error.get('message', 'the api gave no reason')}")
