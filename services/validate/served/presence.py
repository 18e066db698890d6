"""Whether the render server is there, before a job's rows are compared with it. A job waits for one that may be
starting, but outside of its slot, and not for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx

from services.validate.served.client import RenderServer, Silent, Unasked
from shared.errors import TransientError
from shared.settings import RenderSettings

QUICK = 3.0
"""Seconds for one look."""


class Presence:
    """Remembers for all jobs of a process since when the render server has been silent."""

    def __init__(self, render: RenderSettings, timer: Callable[[], float] = time.monotonic) -> None:
        self._render = render
        self._timer = timer
        self._silent_since: float | None = None

    def look(self, model: str, stop: threading.Event, seconds: float = QUICK) -> str | None:
        """Ask the server, which should serve `model`, for at most `seconds`. None: it answers; else why it is not asked
        any more: it has been silent for longer than `render.start_timeout_seconds`.

        Raises:
            TransientError: it is silent, but may be starting.
            Cancelled: `stop` was set.
        """
        assert self._render.url is not None, "without a server nobody looks"
        began = self._timer()
        server = RenderServer(self._render.url, model, stop)
        try:
            server.version(seconds)
        except Silent:
            if self._silent_since is None:
                self._silent_since = began
            limit = self._render.start_timeout_seconds
            if self._timer() - self._silent_since < limit:
                url = httpx.URL(self._render.url).copy_with(userinfo=b"")
                raise TransientError(
                    f"the render server at {url} (TUNESTREAM_RENDER__URL) does not answer; after "
                    f"{limit:g} s without an answer the rows are not compared with it"
                ) from None
            return f"the render server did not answer within {limit:g} s"
        except Unasked:
            pass  # it answers; the comparison says what is wrong with it
        finally:
            server.close()
        self._silent_since = None
        return None
