"""Makes batches: a seeded order of the rows for each epoch, and micro-batches padded on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from services.trainer.engine.data.dataset import Item

IGNORED = -100  # the label that cross-entropy skips


@dataclass(frozen=True)
class Batch:
    """A micro-batch, padded on the right.

    `tokens`, `attention_mask`: (sequences, length). `columns`: (kept,), the positions whose next token is trained on
    in any sequence; logits are computed only there. `targets`: (sequences, kept), the next token or IGNORED.
    For preference pairs, all preferred sequences come first, then all non-preferred ones in the same order;
    `references`: (items,), what `loss.preferences` found for them, None for other rows.
    """

    tokens: Any
    attention_mask: Any
    columns: Any
    targets: Any
    items: int
    trained_tokens: int
    real_tokens: int
    references: Any = None

    def to(self, device: Any) -> Batch:
        def move(tensor: Any) -> Any:
            return tensor.to(device, non_blocking=True)

        return Batch(
            move(self.tokens),
            move(self.attention_mask),
            move(self.columns),
            move(self.targets),
            self.items,
            self.trained_tokens,
            self.real_tokens,
            None if self.references is None else move(self.references),
        )


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of the rows in epoch `epoch`, counted from 0: a permutation that depends on seed and epoch only."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return [int(index) for index in torch.randperm(count, generator=generator)]


def collate(items: Sequence[Item], pad_id: int, references: Sequence[float] | None = None) -> Batch:
    """Build one micro-batch of items that all have the same number of sequences."""
    sequences = [item[place] for place in range(len(items[0])) for item in items]
    length = max(map(len, sequences))
    tokens = torch.full((len(sequences), length), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(sequences), length), dtype=torch.long)
    labels = torch.full((len(sequences), length), IGNORED, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids = torch.from_numpy(sequence.tokens)
        tokens[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
        labels[row, : len(ids)] = torch.where(torch.from_numpy(sequence.trained), ids, IGNORED)
    following = labels[:, 1:]
    columns = (following != IGNORED).any(dim=0).nonzero().flatten()
    return Batch(
        tokens,
        attention_mask,
        columns,
        following[:, columns],
        items=len(items),
        trained_tokens=sum(sequence.trained_tokens for sequence in sequences),
        real_tokens=sum(map(len, sequences)),
        references=None if references is None else torch.tensor(references, dtype=torch.float32),
    )


@dataclass(frozen=True)
class Collator:
    """Makes micro-batches of the items with given indexes. `references`: one per preference pair, None for other
    rows."""

    items: Sequence[Item]
    pad_id: int
    references: Sequence[float] | None = None

    def __call__(self, indexes: Sequence[int]) -> Batch:
        references = None if self.references is None else [self.references[index] for index in indexes]
        return collate([self.items[index] for index in indexes], self.pad_id, references)
