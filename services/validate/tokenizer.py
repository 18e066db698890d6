"""The base's own tokenizer and chat template, through transformers but without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import groupby
from typing import Any, Protocol

from services.validate.domain.content import Row, conversations, input_of
from services.validate.domain.findings import Finding
from services.validate.domain.served import Turn
from shared.base import BaseProfile, ProfileOverride
from shared.base.digest import default_template
from shared.base.making import make_profile
from shared.base.reading import read_base
from shared.conversation import PROBE, TurnEncoder, Turns, Unfit, digest_of, sent_tools
from shared.errors import InputError


class Tokenizer(Protocol):
    """What validation needs to know of a base: how many tokens it makes of rows, and how many it can read."""

    base: str
    context: int | None
    """How many tokens the base can read; None: it states no limit."""
    profile: BaseProfile

    def measure(self, batches: Iterable[Sequence[Row]]) -> Iterator[list[tuple[Row, tuple[int, ...] | Finding]]]:
        """Batch by batch, each row with the tokens of the sequences that it is trained as (two for a preference pair; a
        chat may be several, where a template rewrites earlier turns), or why the base cannot be trained on the row.

        Raises:
            InputError: the base has no chat template, but the rows are chats.
        """
        ...

    def prompt_tokens(self, row: Row) -> int:
        """Tokens of a row before the first that is trained on."""
        ...

    @property
    def template(self) -> str | None:
        """See `Served.template`."""
        ...

    @property
    def probe(self) -> str | None:
        """See `Served.probe`."""
        ...

    def turns(self, row: Row) -> Iterator[Turn]:
        """The answers of a row that are trained on, each with its tokens. The row must have been measured."""
        ...

    def piece(self, token: int) -> tuple[str, bool]:
        """The text of one token, and whether it is an added token, which stands for no text of a user."""
        ...

    def decoded(self, row: Row) -> list[list[tuple[str, bool]]]:
        """The sequences that a row is trained as, each as runs of text and whether the run is trained on. The row must
        have been measured."""
        ...


def load(location: str, base: str, override: ProfileOverride | None = None) -> BaseTokenizer:
    """Load from a local folder or a hub id. `base` is what users call the model, `override` what is set of its profile.
    Raises like `read_base`."""
    files = read_base(location, base)
    return BaseTokenizer(files.tokenizer, base, make_profile(files, override))


class BaseTokenizer:
    """A transformers tokenizer, used as the base's profile says."""

    def __init__(self, tokenizer: Any, base: str, profile: BaseProfile) -> None:
        self._tokenizer = tokenizer
        self._turns = TurnEncoder(tokenizer, profile.stop_ids, profile.chat_template_kwargs)
        self._stops = frozenset(profile.stop_ids)
        self.base = base
        self.profile = profile
        self.context = profile.context

    def measure(self, batches: Iterable[Sequence[Row]]) -> Iterator[list[tuple[Row, tuple[int, ...] | Finding]]]:
        # one batch is tokenized while the one before is compared with it, and the next one is read and rendered
        with ThreadPoolExecutor(1, thread_name_prefix="tokens") as thread:
            waiting = None
            for rows in batches:
                if waiting and self._turns.is_full:
                    yield self._finished(*waiting)
                    waiting = None
                sides = [self._sides(row) for row in rows]
                following = rows, sides, thread.submit(self._rendered(rows, sides))
                if waiting:
                    yield self._finished(*waiting)
                waiting = following
            if waiting:
                yield self._finished(*waiting)

    def _rendered(self, rows: Sequence[Row], sides: Sequence[Sequence[Any]]) -> Callable[[], None]:
        """Render rows. The result is the call that tokenizes them."""
        flat = [side for read in sides for side in read]
        if all(row.format == "completion" for row in rows):
            return self._turns.render_completions(flat)
        if all(row.format != "completion" for row in rows):  # the rows of a file have one format
            return self._turns.render(flat)
        return lambda: None

    def _finished(
        self, rows: Sequence[Row], sides: Sequence[Sequence[Any]], tokenized: Future[None]
    ) -> list[tuple[Row, tuple[int, ...] | Finding]]:
        tokenized.result()
        return [(row, self._measured(row, read)) for row, read in zip(rows, sides, strict=True)]

    def prompt_tokens(self, row: Row) -> int:
        return self._sequences(row, self._sides(row))[0].trained.index(True)

    @property
    def template(self) -> str | None:
        return self.profile.template_digest and self.profile.template_digest[:12]

    @cached_property
    def probe(self) -> str | None:
        template = self._tokenizer.chat_template
        # a template that writes the date makes other tokens on another day
        if not template or "strftime_now" in default_template(template):
            return None
        try:
            return digest_of(self._turns.prompt(PROBE, None))
        except Unfit:
            return None

    def turns(self, row: Row) -> Iterator[Turn]:
        if row.format == "completion":
            prompt, completion = row.value["prompt"], row.value["completion"]
            made = self._turns.complete(prompt, completion)
            begin = made.trained.index(True)
            yield self._turn("completion", made.ids[:begin], made.ids[begin:], {"content": completion}, text=prompt)
            return
        tools = sent_tools(input_of(row))
        sides = ("preferred_completion[0]", "non_preferred_completion[0]")
        for side, (messages, indexes) in enumerate(conversations(row)):
            for index in indexes:
                field = f"messages[{index}]" if row.format == "chat" else sides[side]
                prompt_ids, answer = self._turns.turn(messages, tools, index)
                yield self._turn(field, prompt_ids, answer, messages[index], messages[:index], tools)

    def piece(self, token: int) -> tuple[str, bool]:
        text = self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text), token in self._tokenizer.added_tokens_decoder

    def decoded(self, row: Row) -> list[list[tuple[str, bool]]]:
        return [
            [
                (self._tokenizer.decode([token for token, _ in run], skip_special_tokens=False), trained)
                for trained, run in groupby(zip(made.ids, made.trained, strict=True), key=lambda pair: pair[1])
            ]
            for made in self._sequences(row, self._sides(row))
        ]

    def _turn(
        self,
        field: str,
        prompt: list[int],
        answer: list[int],
        message: dict[str, Any],
        messages: Sequence[dict[str, Any]] = (),
        tools: list[dict[str, Any]] | None = None,
        text: str | None = None,
    ) -> Turn:
        return Turn(field, messages, tools, text, message, prompt, answer, answer[-1] in self._stops)

    def _measured(self, row: Row, sides: Sequence[Any]) -> tuple[int, ...] | Finding:
        try:
            return tuple(len(sequence.ids) for sequence in self._sequences(row, sides))
        except Unfit as error:
            return _refused(row, self.base, error)

    def _sides(self, row: Row) -> Sequence[Any]:
        """What of a row is encoded: a prompt and its completion, or conversations with their tools and turns."""
        if row.format == "completion":
            return [(row.value["prompt"], row.value["completion"])]
        if not self._tokenizer.chat_template:
            raise InputError(
                "base_has_no_chat_template",
                f"The base model {self.base} has no chat template, so chat rows cannot become its text. Choose an "
                "instruction-tuned base, add a chat_template.jinja to its folder, or use prompt/completion rows.",
                "model",
            )
        tools = sent_tools(input_of(row))
        return [(messages, tools, turns) for messages, turns in conversations(row)]

    def _sequences(self, row: Row, sides: Sequence[Any]) -> list[Turns]:
        """What the trainer makes of the row."""
        if row.format == "completion":
            return [self._turns.complete(*pair) for pair in sides]
        return [made for side in sides for made in self._turns.encode(*side)]


def _refused(row: Row, base: str, error: Unfit) -> Finding:
    place = {"chat": "messages", "preference": "input.messages", "completion": ""}[row.format]
    remedy = "change the row as it asks, or choose another base"
    return Finding(
        "chat_template",
        place,
        f"the chat template of {base} refuses this conversation: {error}",
        remedy,
    )
