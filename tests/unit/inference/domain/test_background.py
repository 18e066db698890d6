"""Clients that can wait leave the users of the same server their room."""

from __future__ import annotations

import pytest

from services.inference.domain.background import background_requests


@pytest.mark.parametrize("sequences", [1, 2, 7, 64, 256, 1024])
@pytest.mark.parametrize("cpu", [True, False])
def test_at_most_half_of_what_the_server_computes_at_a_time(sequences: int, cpu: bool) -> None:
    room = background_requests(sequences, cpu=cpu)
    assert room is not None
    assert 1 <= room <= max(1, sequences // 2)


def test_a_gpu_gets_many_and_a_cpu_few() -> None:
    assert background_requests(256, cpu=False) == 128
    assert background_requests(128, cpu=True) == 16
    assert background_requests(None, cpu=False) is None
