"""What a micro-batch holds, and how batches are made one ahead."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import pytest
import torch

from services.trainer.domain.packing import RowShape
from services.trainer.engine.data.ahead import Ahead
from services.trainer.engine.data.batches import SLOTS, Packer
from tests.unit.trainer.engine.test_training import a_sequence

pytestmark = pytest.mark.torch

PAIRS = [(a_sequence(10, 3, 1), a_sequence(15, 5, 2)), (a_sequence(7, 2, 3), a_sequence(6, 2, 4))]


@pytest.mark.parametrize("shape", [RowShape(at_least=24), RowShape(at_least=32, multiple=32), RowShape(packed=False)])
def test_every_trained_token_is_predicted_once_in_its_own_document(shape: RowShape):
    packer = Packer(PAIRS, 99, shape, [0.5, -0.5])
    [micro] = packer.plan([0, 1], 1000)
    batch = packer.pack(micro)
    rows, length = batch.tokens.shape
    assert batch.cu_seqlens.dtype == torch.int32
    assert (len(batch.cu_seqlens) - 1) % SLOTS == 0
    assert (int(batch.cu_seqlens[0]), int(batch.cu_seqlens[-1])) == (0, rows * length)
    begins = batch.cu_seqlens.unique().tolist()
    assert batch.longest == max(end - begin for begin, end in pairwise(begins))
    flat, seen = batch.tokens.flatten(), []
    for number, item in enumerate(micro.items):
        for place, sequence in enumerate(PAIRS[item]):
            mine = batch.owners == number * 2 + place
            trained = torch.from_numpy(sequence.tokens[sequence.trained])
            assert torch.equal(batch.targets[mine], trained)
            assert torch.equal(flat[batch.predicted[mine] + 1], trained)
            assert (
                len({torch.searchsorted(batch.cu_seqlens, at, right=True).item() for at in batch.predicted[mine]}) == 1
            )
            seen.append(int(mine.sum()))
    assert sum(seen) == batch.trained_tokens == len(batch.predicted)
    assert batch.real_tokens == 38
    assert int((flat != 99).sum()) == 38
    assert batch.references.tolist() == [[0.5, -0.5][item] for item in micro.items]
    assert batch.by_sequence(torch.ones(len(batch.targets))).flatten().tolist() == seen
    if shape.packed:
        restarts = (batch.positions.flatten() == 0).nonzero().flatten().tolist()
        assert restarts == begins[:-1]
        assert int(batch.positions.max()) == 14  # padding goes no further than the longest document
    else:
        assert batch.positions is None


def test_what_follows_is_made_on_a_thread_and_errors_come_when_it_is_wanted():
    made: list[tuple[int, str]] = []

    def make(key: int) -> int:
        made.append((key, threading.current_thread().name))
        if key == 2:
            raise ValueError("broken")
        return 10 * key

    ahead: Any = Ahead(make)
    assert ahead.take(0, 1) == 0
    assert ahead.take(1, 2) == 10
    with pytest.raises(ValueError, match="broken"):
        ahead.take(2, 3)
    assert ahead.take(7, 2) == 70  # a step of other sizes, because memory ran out
    assert ahead.take(8, None) == 80  # what the thread made for 2 is not wanted, nor its error
    mine = threading.current_thread().name
    assert [key for key, thread in made if thread == mine] == [0, 7, 8]
    assert {key for key, thread in made if thread != mine} == {1, 2}
