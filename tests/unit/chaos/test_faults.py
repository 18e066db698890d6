"""Every fault is ended, whatever happens; and the links break what runs through them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from tests.chaos import faults as module
from tests.chaos import links as proxies
from tests.chaos.faults import Injector
from tests.chaos.links import Links
from tests.chaos.schedule import Fault
from tests.chaos.stack import Missed, Stack


class FakeStack:
    """Says what begins and what ends."""

    def __init__(self, absent: str = "", broken: str = "") -> None:
        self.log: list[str] = []
        self._absent, self._broken = absent, broken

    def inject(self, fault: Fault) -> Callable[[], None]:
        if fault.target == self._absent:
            raise Missed(fault.target)
        if fault.target == self._broken:
            raise OSError("the harness itself fails")
        self.log.append(f"+{fault.target}")
        return lambda: self.log.append(f"-{fault.target}")


def injector(stack: FakeStack) -> Injector:
    return Injector(cast(Stack, stack), lambda line: None)


def test_faults_overlap_and_each_is_ended_when_its_time_is_over() -> None:
    stack = FakeStack()
    run = injector(stack)
    run.run([Fault(1, 0.0, "stop", "a", 0.3), Fault(2, 0.1, "stop", "b", 0.05), Fault(3, 0.2, "kill", "c")])
    assert stack.log == ["+a", "+b", "-b", "+c", "-c", "-a"]
    assert [hit.fault.split()[1] for hit in run.hits] == ["b", "c", "a"]
    assert all(hit.ended >= hit.began and not hit.missed for hit in run.hits)


def test_a_fault_without_a_target_is_counted_as_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_FOR_TARGET", 0.0)
    stack = FakeStack(absent="a")
    run = injector(stack)
    run.run([Fault(1, 0.0, "stop", "a", 1.0), Fault(2, 0.0, "stop", "b", 0.0)])
    assert stack.log == ["+b", "-b"]
    assert [hit.missed for hit in run.hits] == [True, False]


def test_when_the_harness_fails_all_faults_are_ended() -> None:
    stack = FakeStack(broken="b")
    with pytest.raises(OSError, match="harness"):
        injector(stack).run([Fault(1, 0.0, "stop", "a", 60.0), Fault(2, 0.0, "stop", "b", 1.0)])
    assert stack.log == ["+a", "-a"]


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that says everything again."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    def answer(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(1024):
                    client.sendall(data)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


@pytest.fixture
def links(echo: int) -> Iterator[Links]:
    with proxies.running({"link": echo}) as started:
        yield started


def connected(links: Links) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", links.port("link")), 5)
    client.sendall(b"one")
    assert client.recv(16) == b"one"
    return client


def is_gone(client: socket.socket) -> bool:
    """Whether the connection is closed or reset."""
    try:
        client.sendall(b"more")
        return client.recv(16) == b""
    except ConnectionError:
        return True


def test_a_cut_link_resets_connections_and_refuses_new_ones_until_it_is_healed(links: Links) -> None:
    client = connected(links)
    links.cut("link")
    assert is_gone(client)
    assert is_gone(socket.create_connection(("127.0.0.1", links.port("link")), 5))
    links.heal("link")
    connected(links).close()


def test_a_muted_link_answers_nothing_and_its_connections_are_reset_when_it_is_healed(links: Links) -> None:
    client = connected(links)
    links.mute("link")
    client.sendall(b"two")
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.recv(16)
    links.heal("link")
    client.settimeout(5)
    assert is_gone(client), "nothing comes after the lost answer"
    connected(links).close()


def test_a_slow_link_brings_everything_late(links: Links) -> None:
    client = connected(links)
    links.slow("link", 10_000)
    began = time.monotonic()
    for _ in range(2):
        client.sendall(b"x" * 1000)
        got = b""
        while len(got) < 1000:
            got += client.recv(1024)
    assert time.monotonic() - began > 0.1
