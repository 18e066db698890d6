"""Encodes rows of JSON Lines as tokens with masks, and applies the policy for rows that are too long."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from services.trainer.engine.data.chat import ChatEncoder
from services.trainer.engine.data.tokens import Example, example
from shared.conversation import TurnEncoder, Unfit, sent_tools
from shared.errors import InputError

# Rows that are tokenized in one call, on all cores. A chunk is bounded in bytes, too: rows may be megabytes long.
CHUNK_ROWS = 512
CHUNK_BYTES = 2**20

Line = tuple[str, dict[str, Any] | InputError]
"""Where a row stands, and the row or what is wrong with its line."""
_PAIR = ("preferred_completion", "non_preferred_completion")

Format = Literal["chat", "completion", "preference"]
Item = tuple[Example, ...]
"""One sequence, or the preferred and the non-preferred answer to one prompt. It is never split between
micro-batches."""
EncodedRow = tuple[Item, ...]
"""A row: one item, or several where a template rewrites earlier turns. It is never split between steps."""


@dataclass(frozen=True)
class Dataset:
    """One encoded split. `dropped` and `truncated` count rows; tokens are counted for one epoch."""

    rows: tuple[EncodedRow, ...]
    dropped: int = 0
    truncated: int = 0

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The items of all rows, in the order of the rows."""
        return tuple(item for row in self.rows for item in row)

    @cached_property
    def _places(self) -> list[range]:
        ends = list(accumulate(map(len, self.rows)))
        return [range(end - len(row), end) for row, end in zip(self.rows, ends, strict=True)]

    def items_of(self, rows: Iterable[int]) -> list[int]:
        """The indexes of the items of the rows with these indexes."""
        return [item for row in rows for item in self._places[row]]

    @property
    def sequences(self) -> int:
        """How many there are."""
        return sum(map(len, self.items))

    @property
    def lengths(self) -> list[int]:
        """The tokens of each item; of a pair, those of its longer sequence."""
        return [max(map(len, item)) for item in self.items]

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    @property
    def tokens(self) -> int:
        return sum(len(sequence) for item in self.items for sequence in item)

    @property
    def trained_tokens(self) -> int:
        return sum(sequence.trained_tokens for item in self.items for sequence in item)

    @property
    def squares(self) -> float:
        """The sum of the squared lengths of all sequences, which attention grows with."""
        return float(sum(len(sequence) ** 2 for item in self.items for sequence in item))

    def limited(self, max_length: int, policy: Literal["drop", "truncate", "fail"], param: str) -> Dataset:
        """Apply `policy` to rows with a sequence of more than `max_length` tokens, then drop what has no trained tokens
        left.

        Raises:
            InputError: `over_length` when the policy is `fail`, or when nothing would be left.
        """
        longest = [max(len(sequence) for item in row for sequence in item) for row in self.rows]
        over = [length for length in longest if length > max_length]
        if not over:
            return self
        if policy == "fail":
            raise InputError(
                "over_length",
                f"{len(over)} rows have more than {max_length} tokens (the longest has {max(over)}): shorten them, "
                "raise hyperparameters.max_length, or set hyperparameters.over_length to 'drop' or 'truncate'",
                param,
            )
        if policy == "truncate":
            shortened = (_learnable(tuple(e.cut(max_length) for e in item) for item in row) for row in self.rows)
            fit = [row for row in shortened if row]
        else:
            fit = [row for row, length in zip(self.rows, longest, strict=True) if length <= max_length]
        if not fit:
            raise InputError(
                "over_length",
                f"every row has more than {max_length} tokens: shorten them or raise hyperparameters.max_length",
                param,
            )
        truncated = len(fit) - (len(self.rows) - len(over))
        return replace(self, rows=tuple(fit), dropped=self.dropped + len(self.rows) - len(fit), truncated=truncated)


class Encoder:
    """Encodes the rows of one format for one base.

    `stop_ids`: the tokens at which the server stops, the tokenizer's own EOS first. `kwargs`: what the chat template is
    given beside messages and tools.
    """

    def __init__(
        self, tokenizer: Any, stop_ids: Sequence[int], form: Format, kwargs: Mapping[str, Any] | None = None
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                "unsupported_base",
                "the base model's tokenizer has no tokenizer.json, and without it answers cannot be separated from "
                "prompts: choose a base that has one",
                "model",
            )
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        self.form = form
        self.kwargs = kwargs or {}
        self.turns = TurnEncoder(tokenizer, stop_ids)
        self.chat = None if form == "completion" else ChatEncoder(tokenizer, stop_ids, kwargs)

    def read(self, path: Path, param: str, told: Callable[[int], None] = lambda rows: None) -> Dataset:
        """Encode a file of one row per line. `told` is called with the number of rows that are read, again and again.

        Raises:
            InputError: `invalid_training_file`: a row is wrong (the message names the line and the field), or no row
                has anything to train on.
        """
        rows: list[EncodedRow] = []
        dropped = 0
        for chunk in _chunks(_rows(path, param)):
            for found in self._encoded(chunk, param):
                usable = _learnable(found)
                if usable:
                    rows.append(usable)
                dropped += not usable
                told(len(rows) + dropped)
        dataset = Dataset(tuple(rows), dropped)
        self._check(dataset, param)
        return dataset

    def _encoded(self, chunk: Sequence[Line], param: str) -> Iterator[list[Item]]:
        """The items of each row. What is wrong with a row is raised when its turn comes."""
        parsed = [(where, self._sides(row) if isinstance(row, dict) else row) for where, row in chunk]
        sides = [side for _, row in parsed if isinstance(row, list) for side in row]
        if self.chat is None:
            self.turns.prepare_completions(sides)
        else:
            self.chat.turns.prepare(sides)
        for where, row in parsed:
            try:
                if isinstance(row, Exception):
                    raise row
                found = self._items(row, where)
            except (KeyError, TypeError, AttributeError) as error:
                field = (
                    f"field {error.args[0]!r} is missing"
                    if isinstance(error, KeyError)
                    else "a field has the wrong type"
                )
                message = f"{where}: {field}; a {self.form} row was expected"
                raise InputError("invalid_training_file", message, param) from None
            yield found

    def _sides(self, row: dict[str, Any]) -> list[Any] | Exception:
        """What is encoded of a row: prompt and completion, a conversation, or two; or what is wrong with it."""
        try:
            if self.chat is None:
                pair = row["prompt"], row["completion"]
                return [pair] if all(isinstance(text, str) for text in pair) else TypeError()
            if self.form == "chat":
                return [self.chat.conversation(row["messages"], sent_tools(row))]
            asked = row["input"]
            prompt, tools = list(asked["messages"]), sent_tools(asked)
            return [self.chat.conversation([*prompt, *row[field]], tools, answers_from=len(prompt)) for field in _PAIR]
        except (KeyError, TypeError, AttributeError) as error:
            return error

    def _items(self, sides: Sequence[Any], where: str) -> list[Item]:
        if self.chat is None:
            return [(self._completion(prompt, completion, where),) for prompt, completion in sides]
        encoded = (self.chat.encode(side, where=where) for side in sides)
        if self.form == "chat":
            return [(one,) for examples in encoded for one in examples]
        pair: list[Example] = []
        for field, answers in zip(_PAIR, encoded, strict=True):
            if len(answers) != 1:
                message = f"{where}: {field} must hold exactly one assistant message"
                raise InputError("invalid_training_file", message, "training_file")
            pair += answers
        return [tuple(pair)]

    def _completion(self, prompt: str, completion: str, where: str) -> Example:
        try:
            made = self.turns.complete(prompt, completion)
        except Unfit as error:
            raise InputError(
                "invalid_training_file", f"{where}: the base cannot take it: {error}", "training_file"
            ) from None
        return example(made.ids, made.trained)

    def _check(self, dataset: Dataset, param: str) -> None:
        if not dataset.rows:
            message = "no row has anything to train on: no assistant message with a weight other than 0"
            raise InputError("invalid_training_file", message, param)

    def preview(self, dataset: Dataset, most: int = 4) -> str:
        """The first rows as text for a person who checks the mask: what is trained on is between ⟦ and ⟧."""
        pages = ["Text between ⟦ and ⟧ is trained on; the rest is only read.\n"]
        for number, row in enumerate(dataset.rows[:most], start=1):
            sequences = [sequence for item in row for sequence in item]
            names = [""] if len(sequences) == 1 else [f" (sequence {n} of {len(row)})" for n, _ in enumerate(row, 1)]
            if self.form == "preference":
                names = [" (preferred)", " (non-preferred)"]
            for sequence, name in zip(sequences, names, strict=True):
                head = f"--- row {number}{name}: {len(sequence)} tokens, {sequence.trained_tokens} trained"
                pages.append(f"{head}\n{self._marked(sequence)}\n")
        return "\n".join(pages)

    def _marked(self, sequence: Example) -> str:
        pieces = []
        begin = 0
        for end in range(1, len(sequence) + 1):
            if end == len(sequence) or sequence.trained[end] != sequence.trained[begin]:
                text = self.tokenizer.decode(sequence.tokens[begin:end].tolist(), skip_special_tokens=False)
                pieces.append(f"⟦{text}⟧" if sequence.trained[begin] else text)
                begin = end
        return "".join(pieces)


def _learnable(items: Iterable[Item]) -> EncodedRow:
    """The items that have something to learn in each of their sequences."""
    return tuple(item for item in items if all(sequence.trained_tokens for sequence in item))


def _rows(path: Path, param: str) -> Iterator[tuple[Line, int]]:
    """The rows of a file, or what is wrong with a line; and the size of each line in bytes."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"line {number} of {path.name}"
                yield (where, _row(line, where, param)), len(line)


def _row(line: bytes, where: str, param: str) -> dict[str, Any] | InputError:
    try:
        # not strictly: the validator has refused what not every reader of JSON takes
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        message = f"{where}: not valid JSON ({error.__class__.__name__}): one JSON object per line"
        return InputError("invalid_training_file", message, param)
    if not isinstance(row, dict):
        return InputError("invalid_training_file", f"{where}: a JSON object was expected", param)
    return row


def _chunks(rows: Iterable[tuple[Line, int]]) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    size = 0
    for row, length in rows:
        chunk.append(row)
        size += length
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    yield chunk
