"""The answers of one variant to all examples. They are asked for concurrently, kept in the object store, and reused by
a later attempt."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeVar

from services.evaluator.domain.answer_length import Limit
from services.evaluator.domain.answers import Answer, Part
from services.evaluator.domain.questions.prompts import Prompt
from shared import ids, telemetry
from shared.stages.stage import Attempt
from shared.store.objects import ObjectStore
from shared.tasks import gather_or_cancel

T = TypeVar("T")


class Asks(Protocol):
    """A client of an endpoint."""

    async def ask(
        self,
        model: str,
        prompts: Sequence[Prompt],
        max_tokens: int,
        *,
        thinking: int = 0,
        patience: float | None = None,
    ) -> Answer:
        """The answer of `model` to the first of `prompts` that fits."""
        ...


TRACED_QUESTIONS = 64
"""The number of questions of each variant that are traced, here and in the gateway: nobody reads thousands of similar
spans."""


@dataclass(frozen=True)
class Questions:
    """What one variant is asked. `prompts` has an entry per example: its prompt, then shorter ones, which are
    tried if it does not fit into the context."""

    variant: Part
    model: str
    prompts: tuple[tuple[Prompt, ...], ...]
    limit: Limit
    """The most tokens of an answer."""

    def digest(self) -> str:
        """A digest of everything that the answers depend on."""
        asked = [[prompt.model_dump() for prompt in prompts] for prompts in self.prompts]
        return hashlib.sha256(ids.canonical([self.model, self.limit.tokens, self.limit.thinking, asked])).hexdigest()


Answers = list[Answer | None]
"""An entry per question, in their order; None: not answered yet."""


class AnswerCache:
    """`{attempt}/answers-{variant}.jsonl`: a header line with the digest of the questions, then one answer per line.

    `answers-{variant}-part.jsonl` is the same of a variant that an outage interrupted; a line is `null` where there is
    no answer.
    """

    def __init__(self, objects: ObjectStore, attempt: Attempt, parents: Sequence[str] = ()) -> None:
        """`parents`: the prefixes of other jobs' attempts whose answers may be used."""
        self._objects = objects
        self._attempt = attempt
        self._earlier = (*attempt.earlier, *parents)
        self._written: set[str] | None = None

    async def get(self, questions: Questions) -> Answers:
        """The answers of the newest earlier attempt that asked exactly these questions; each is None if there is
        none."""
        for prefix in self._earlier:
            for complete in (True, False):
                key = _key(prefix, questions.variant, complete=complete)
                found = await self._objects.get(key) if key in await self._keys() else None
                if found is None:
                    continue
                header, *lines = found[0].splitlines()
                if json.loads(header)["digest"] == questions.digest():
                    return [None if line == b"null" else Answer.model_validate_json(line) for line in lines]
        return [None] * len(questions.prompts)

    async def put(self, questions: Questions, answers: Sequence[Answer | None]) -> None:
        """Keep the answers for later attempts."""
        header = json.dumps({"variant": questions.variant, "digest": questions.digest()})
        lines = [header, *("null" if answer is None else answer.model_dump_json() for answer in answers)]
        key = _key(self._attempt.prefix, questions.variant, complete=None not in answers)
        await self._objects.put(key, ("\n".join(lines) + "\n").encode())

    async def _keys(self) -> set[str]:
        """What earlier attempts have written. A job that waited for long has hundreds that have written nothing."""
        if self._written is None:
            stages = dict.fromkeys(prefix[: prefix.rindex("attempt-")] for prefix in self._earlier)
            found = [await self._objects.list(f"{stage}attempt-") for stage in stages]
            self._written = {entry.key for entries in found for entry in entries}
        return self._written


async def ask_all(
    endpoint: Asks,
    questions: Questions,
    answers: Answers,
    concurrency: int,
    answered: Callable[[], Awaitable[None]],
) -> None:
    """Ask all questions that have no answer yet, at most `concurrency` at a time, and put the answers into `answers`.

    `answered` is awaited after each answer. Raises what `endpoint.ask` raises; `answers` then holds those that came.
    """
    slots = asyncio.Semaphore(concurrency)

    async def ask(index: int, prompts: tuple[Prompt, ...]) -> None:
        async with slots:
            with nullcontext() if index < TRACED_QUESTIONS else telemetry.unrecorded():
                limit = questions.limit
                answers[index] = await endpoint.ask(questions.model, prompts, limit.tokens, thinking=limit.thinking)
        await answered()

    await gather_or_cancel(
        ask(index, prompts) for index, prompts in enumerate(questions.prompts) if answers[index] is None
    )


def _key(prefix: str, variant: Part, *, complete: bool) -> str:
    return f"{prefix}answers-{variant}{'' if complete else '-part'}.jsonl"
