"""Where sequences go: nothing is lost, nothing is split, and little is padded."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.domain.packing import MicroBatch, RowShape, plan, row_shape

SHAPES = [
    RowShape(),
    RowShape(at_least=30),
    RowShape(at_least=64, multiple=8),
    RowShape(packed=False),
    RowShape(at_least=64, most_documents=3),
    row_shape(gpu=True, varlen=True, packed=True),
    row_shape(gpu=True, varlen=True, packed=True, most_documents=3),
]
ITEMS: Any = st.integers(1, 2).flatmap(
    lambda each: st.lists(st.tuples(*[st.integers(1, 50)] * each), min_size=1, max_size=40)
)


def filled(micro: MicroBatch, lengths: list[tuple[int, ...]]) -> list[int]:
    return [sum(lengths[item][place] for item, place in row) for row in micro.rows]


@given(ITEMS, st.integers(0, 150), st.sampled_from(SHAPES))
def test_each_sequence_has_one_place_beside_the_others_of_its_item(
    lengths: list[tuple[int, ...]], most: int, shape: RowShape
):
    micros = list(plan(range(len(lengths)), lengths, most, shape))
    assert sorted(item for micro in micros for item in micro.items) == list(range(len(lengths)))
    for micro in micros:
        places = sorted(place for row in micro.rows for place in row)
        assert places == sorted((item, at) for item in micro.items for at in range(len(lengths[item])))
        assert all(used <= micro.length for used in filled(micro, lengths))
        assert all(micro.rows)
        assert micro.length % shape.multiple == 0
        if len(micro.items) > 1:
            assert micro.tokens <= max(most, max(max(each) for each in lengths) * len(lengths[0])) + shape.multiple * 64
            assert len(places) <= shape.most_documents
        if not shape.packed:
            assert all(len(row) == 1 for row in micro.rows)
    assert micros == list(plan(range(len(lengths)), lengths, most, shape))


@pytest.mark.parametrize(("packed", "most_padding"), [(True, 0.05), (False, 0.5)])
def test_documents_of_all_lengths_leave_little_padding(packed: bool, most_padding: float):
    draw = random.Random(0)
    lengths = [(min(2048, max(8, round(draw.lognormvariate(5.6, 0.9)))),) for _ in range(256)]
    shape = row_shape(gpu=True, varlen=True, packed=packed)
    micros = list(plan(range(len(lengths)), lengths, 8192, shape))
    real = sum(each for (each,) in lengths)
    assert sum(micro.tokens for micro in micros) <= real / (1 - most_padding)


@given(st.lists(st.integers(1, 900), min_size=1, max_size=60), st.integers(900, 4000))
def test_the_micro_batches_of_a_step_are_even_and_no_more_than_before(lengths: list[int], most: int):
    items = [(each,) for each in lengths]
    even = row_shape(gpu=True, varlen=True, packed=True)
    found, before = (list(plan(range(len(items)), items, most, each)) for each in (even, replace(even, balanced=False)))
    assert len(found) == len(before)
    largest = max(sum(filled(micro, items)) for micro in found)
    assert largest <= min(most, max(sum(filled(micro, items)) for micro in before))


def test_what_is_a_little_more_than_a_micro_batch_is_halved():
    items = [(410,)] * 21  # 8,610 tokens
    [one, other] = plan(range(21), items, 8192, row_shape(gpu=True, varlen=True, packed=True))
    assert (sum(filled(one, items)), sum(filled(other, items))) == (4510, 4100)
    # where launches are recorded, few shapes are better
    [one, other] = plan(range(21), items, 8192, row_shape(gpu=True, varlen=True, packed=True, recorded=512))
    assert (sum(filled(one, items)), sum(filled(other, items))) == (7790, 820)


def test_with_no_room_at_all_items_go_one_by_one():
    assert [micro.items for micro in plan(range(3), [(5,), (9,), (9,)], 0, RowShape(at_least=64))] == [(1,), (2,), (0,)]
    [pair] = plan([0], [(5, 9)], 0, RowShape())
    assert (pair.items, pair.length) == ((0,), 9)


def test_rows_of_one_length_where_shapes_must_not_change():
    shape = RowShape(at_least=64, multiple=64)
    assert {micro.length for micro in plan(range(9), [(7,)] * 9, 128, shape)} == {64}
