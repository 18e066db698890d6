"""Makes batches: a seeded order of the rows of each epoch, and micro-batches of packed rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from services.trainer.domain.packing import MicroBatch, RowShape, plan
from services.trainer.engine.data.dataset import Item
from services.trainer.engine.fast.head import NO_TARGET

SLOTS = 16
"""The number of documents in `cu_seqlens` is rounded up to a multiple of this, so that few shapes occur."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch: rows of one length, each with several documents (sequences) and padding at its end.

    `tokens`: (rows, length). `positions`: (rows, length), the place of each token in its document; None: a row is one
    document, and the model counts itself. `cu_seqlens`: (slots + 1,) int32, where the documents begin when all rows are
    read as one; padding is documents, too, and the slots that are left over are empty ones at the end. `longest`: the
    tokens of the longest document.

    `predicted`: (kept,), the places in all rows read as one whose next token is trained on; `targets`: (kept,), these
    next tokens, and `NO_TARGET` at the end where `kept` is rounded up; `owners`: (kept,), the sequences that they
    belong to, numbered item by item. Each item has `each` sequences. `references`: (items,), what `loss.preferences`
    found for pairs, None for other rows.
    """

    tokens: Any
    positions: Any
    cu_seqlens: Any
    longest: int
    predicted: Any
    targets: Any
    owners: Any
    items: int
    each: int
    trained_tokens: int
    real_tokens: int
    references: Any = None

    def by_sequence(self, values: Any) -> Any:
        """The sums of `values`, (kept,), over each sequence: (items, each)."""
        sums = torch.zeros(self.items * self.each, dtype=values.dtype, device=values.device)
        return sums.index_add(0, self.owners, values).view(self.items, self.each)

    def pinned(self) -> Batch:
        """In memory that a GPU reads by itself."""
        return self._changed(lambda tensor: tensor.pin_memory())

    def to(self, device: Any) -> Batch:
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True))

    def _changed(self, change: Callable[[Any], Any]) -> Batch:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(each) for name, each in tensors.items() if torch.is_tensor(each)})


@lru_cache(maxsize=4)
def epoch_order(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    """The order of the rows in epoch `epoch`, counted from 0: a permutation that depends on seed and epoch only."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return tuple(torch.randperm(count, generator=generator).tolist())


class Packer:
    """Packs items into micro-batches. All items have the same number of sequences. `references`: one per preference
    pair, None for other rows."""

    def __init__(
        self, items: Sequence[Item], pad_id: int, shape: RowShape, references: Sequence[float] | None = None
    ) -> None:
        self.items = items
        self.pad_id = pad_id
        self.shape = shape
        self.references = references
        self.lengths = [tuple(map(len, item)) for item in items]
        self.longest = max((max(each) for each in self.lengths), default=0)

    def plan(self, indexes: Sequence[int], most_tokens: int) -> list[MicroBatch]:
        """Where the items with these indexes go."""
        return list(plan(indexes, self.lengths, most_tokens, self.shape))

    def pack(self, micro: MicroBatch) -> Batch:
        """The tensors of a micro-batch, on the CPU."""
        each = len(self.lengths[micro.items[0]])
        number = {item: at for at, item in enumerate(micro.items)}
        longest = min(self.longest, micro.length)
        tokens = np.full((len(micro.rows), micro.length), self.pad_id, dtype=np.int64)
        positions = np.empty_like(tokens)
        documents, predicted, targets, owners = [], [], [], []
        for row, places in enumerate(micro.rows):
            begin = 0
            for item, place in places:
                sequence = self.items[item][place]
                tokens[row, begin : begin + len(sequence)] = sequence.tokens
                before = np.flatnonzero(sequence.trained[1:])
                predicted.append(row * micro.length + begin + before)
                targets.append(sequence.tokens[before + 1])
                owners.append(np.full(len(before), number[item] * each + place))
                begin += len(sequence)
            lengths = [*(self.lengths[item][place] for item, place in places), *_padding(micro.length - begin, longest)]
            positions[row] = np.concatenate([np.arange(length) for length in lengths])
            documents += lengths if self.shape.packed else [micro.length]
        kept = sum(map(len, predicted))
        empty = -kept % self.shape.kept_multiple
        return Batch(
            tokens=torch.from_numpy(tokens),
            positions=torch.from_numpy(positions) if self.shape.packed else None,
            cu_seqlens=_cu_seqlens(documents),
            longest=longest if self.shape.packed else micro.length,
            predicted=_tensor(predicted, empty, 0),
            targets=_tensor(targets, empty, NO_TARGET),
            owners=_tensor(owners, empty, 0),
            items=len(micro.items),
            each=each,
            trained_tokens=kept,
            real_tokens=sum(sum(self.lengths[item]) for item in micro.items),
            references=None
            if self.references is None
            else torch.tensor([self.references[item] for item in micro.items], dtype=torch.float32),
        )


def _padding(tokens: int, longest: int) -> Iterable[int]:
    """Documents of padding, none longer than the real ones: a model may have no positions beyond."""
    return (min(longest, tokens - begin) for begin in range(0, tokens, longest))


def _cu_seqlens(documents: Sequence[int]) -> Any:
    slots = -(-len(documents) // SLOTS) * SLOTS
    ends = np.cumsum([*documents, *[0] * (slots - len(documents))])
    return torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32))


def _tensor(parts: Sequence[Any], empty: int, filler: int) -> Any:
    return torch.from_numpy(np.concatenate([*parts, np.full(empty, filler)]).astype(np.int64))
