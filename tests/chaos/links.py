"""The connections of a stack, each through a TCP proxy that can be cut, muted and slowed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager

from tests.support.fakes.proxy import Proxy


class Links:
    """Proxies by name. They run in a thread of their own, so that a workload in this process does not hold them up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proxies: Mapping[str, Proxy]) -> None:
        self._loop = loop
        self._proxies = proxies

    def port(self, name: str) -> int:
        """The port at which clients of the link connect."""
        return self._proxies[name].port

    def cut(self, name: str) -> None:
        def change(proxy: Proxy) -> None:
            proxy.mode = "refused"
            proxy.cut()

        self._do(name, change)

    def mute(self, name: str) -> None:
        self._do(name, lambda proxy: setattr(proxy, "mode", "silent"))

    def slow(self, name: str, bytes_per_second: float) -> None:
        self._do(name, lambda proxy: setattr(proxy, "bytes_per_second", bytes_per_second))

    def heal(self, name: str) -> None:
        """Forward everything again. Connections that have lost an answer are reset."""

        def change(proxy: Proxy) -> None:
            silent = proxy.mode == "silent"
            proxy.mode, proxy.bytes_per_second = "open", float("inf")
            if silent:
                proxy.cut()

        self._do(name, change)

    def _do(self, name: str, change: Callable[[Proxy], None]) -> None:
        proxy, done = self._proxies[name], threading.Event()

        def run() -> None:
            change(proxy)
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10), f"the proxy of {name} does not answer"


@contextmanager
def running(ports: Mapping[str, int]) -> Iterator[Links]:
    """Start a proxy for each link; `ports` are those of the servers."""
    started: list[Links | BaseException] = []
    ready, end = threading.Event(), asyncio.Event()

    async def serve() -> None:
        try:
            async with AsyncExitStack() as stack:
                proxies = {name: await stack.enter_async_context(Proxy(port).running()) for name, port in ports.items()}
                started.append(Links(asyncio.get_running_loop(), proxies))
                ready.set()
                await end.wait()
        except BaseException as error:
            started.append(error)
            ready.set()
            raise

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="links", daemon=True)
    thread.start()
    ready.wait(30)
    links = started[0]
    if not isinstance(links, Links):
        raise links
    try:
        yield links
    finally:
        links._loop.call_soon_threadsafe(end.set)
        thread.join(10)
