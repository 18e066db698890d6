"""Turns text into tokens, and into a mask that says which tokens are in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Example:
    """One sequence. `tokens`: (length,) int64 ids; `trained`: (length,) bool, True where the token is in the loss."""

    tokens: NDArray[np.int64]
    trained: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def trained_tokens(self) -> int:
        # The first token is never predicted, so it is never in the loss.
        return int(self.trained[1:].sum())

    def cut(self, most: int) -> Example:
        return Example(self.tokens[:most], self.trained[:most])


def tokenize(
    tokenizer: Any, text: str, spans: Sequence[Span], *, special: bool, end: int | None
) -> tuple[list[int], list[bool]]:
    """Tokenize `text`; tokens that begin inside one of the character `spans` are trained.

    The whole text is tokenized at once, as the server does with a prompt. Where a token would cross the border between
    prompt and answer, the two sides are tokenized separately: the server never sees such a token.

    Args:
        special: add what the tokenizer puts around a text (BOS); chat templates bring their own.
        end: a token to append, which is trained; None: append none.
    """
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    ids, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    if special and ids and offsets[-1][0] == offsets[-1][1]:
        ids, offsets = ids[:-1], offsets[:-1]  # this tokenizer appends EOS to every text, but here `end` decides
    borders = {border for span in spans for border in span}
    if any(begin < border < stop for begin, stop in offsets for border in borders):
        ids, offsets = _tokenize_apart(tokenizer, text, sorted(borders), special=special)
    # Tokens without text, such as BOS, are not trained on: the model never has to produce them.
    trained = [begin < stop and any(s <= begin < e for s, e in spans) for begin, stop in offsets]
    if end is not None:
        ids.append(end)
        trained.append(True)
    return ids, trained


def example(ids: Sequence[int], trained: Sequence[bool]) -> Example:
    """An example without the tokens after its last trained one: in a causal model they would only cost time."""
    mask = np.asarray(trained, dtype=np.bool_)
    length = int(mask.nonzero()[0][-1]) + 1 if mask.any() else len(mask)
    return Example(np.asarray(ids, dtype=np.int64)[:length], mask[:length])


def _tokenize_apart(
    tokenizer: Any, text: str, borders: Sequence[int], *, special: bool
) -> tuple[list[int], list[Span]]:
    ids: list[int] = []
    offsets: list[Span] = []
    edges = [0, *(border for border in borders if 0 < border < len(text)), len(text)]
    for begin, stop in pairwise(edges):
        piece = tokenizer(text[begin:stop], add_special_tokens=special and begin == 0, return_offsets_mapping=True)
        found = [(begin + b, begin + e) for b, e in piece["offset_mapping"]]
        width = [index for index, (b, e) in enumerate(found) if b < e or (begin == 0 and index == 0)]
        ids += [piece["input_ids"][index] for index in width]
        offsets += [found[index] for index in width]
    return ids, offsets
