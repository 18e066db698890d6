"""The choice of free ports."""

from __future__ import annotations

import socket

import pytest

from cli.stack.ports import GRPC_OFFSET, USUAL, WITH_TWIN, choose, is_free
from cli.terminal import CliError


def test_the_usual_ports_when_all_are_free() -> None:
    assert choose({}, free=lambda port: True) == USUAL


def test_a_taken_port_gives_way_to_the_next() -> None:
    chosen = choose({}, free=lambda port: port not in {9092, 9093})
    assert chosen["kafka"] == 9094
    assert {name: port for name, port in chosen.items() if name != "kafka"} == {
        name: port for name, port in USUAL.items() if name != "kafka"
    }


def test_a_port_whose_grpc_twin_is_taken_is_not_used() -> None:
    assert choose({}, free=lambda port: port != 8333 + GRPC_OFFSET)["s3"] == 8334


def test_preferred_ports_come_first_and_no_port_is_given_twice() -> None:
    chosen = choose({"api": 8000, "inference": 8000, "filer": 9333}, free=lambda port: True)
    assert chosen["inference"] == 8000
    assert chosen["api"] == 8001
    numbers = [*chosen.values(), *(chosen[name] + GRPC_OFFSET for name in WITH_TWIN)]
    assert len(numbers) == len(set(numbers))


def test_twins_stay_below_the_last_port() -> None:
    with pytest.raises(CliError, match="no port is free for s3"):
        choose({"s3": 60_000}, free=lambda port: True)


def test_a_listening_server_takes_its_port_until_it_ends() -> None:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)
