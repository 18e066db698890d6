"""The answers of one variant to all examples. They are asked for concurrently, kept in the object store, and reused by
a later attempt."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from services.evaluator.client import Endpoint
from services.evaluator.domain.answer_length import Limit
from services.evaluator.domain.answers import Answer, Variant
from services.evaluator.domain.prompts import Prompt
from shared import ids, telemetry
from shared.stages.stage import Attempt
from shared.store.objects import ObjectStore
from shared.tasks import cancel_and_wait

T = TypeVar("T")

TRACED_QUESTIONS = 64
"""The number of questions of each variant that are traced, here and in the gateway: nobody reads thousands of similar
spans."""


@dataclass(frozen=True)
class Questions:
    """What one variant is asked. `prompts` has an entry per example: its prompt, then shorter ones, which are
    tried if it does not fit into the context."""

    variant: Variant
    model: str
    prompts: tuple[tuple[Prompt, ...], ...]
    limit: Limit
    """The most tokens of an answer."""

    def digest(self) -> str:
        """A digest of everything that the answers depend on."""
        asked = [[prompt.model_dump() for prompt in prompts] for prompts in self.prompts]
        return hashlib.sha256(ids.canonical([self.model, self.limit.tokens, self.limit.thinking, asked])).hexdigest()


class AnswerCache:
    """`{attempt}/answers-{variant}.jsonl`: a header line with the digest of the questions, then one answer per line.

    The file is written when the variant is complete, so no file holds a part of the answers.
    """

    def __init__(self, objects: ObjectStore, attempt: Attempt, parents: Sequence[str] = ()) -> None:
        """`parents`: the prefixes of other jobs' attempts whose answers may be used."""
        self._objects = objects
        self._attempt = attempt
        self._earlier = (*attempt.earlier, *parents)

    async def get(self, questions: Questions) -> list[Answer] | None:
        """The answers of the newest earlier attempt that asked exactly these questions; None if there is none."""
        for prefix in self._earlier:
            found = await self._objects.get(_key(prefix, questions.variant))
            if found is None:
                continue
            header, *lines = found[0].splitlines()
            if json.loads(header)["digest"] == questions.digest():
                return [Answer.model_validate_json(line) for line in lines]
        return None

    async def put(self, questions: Questions, answers: Sequence[Answer]) -> None:
        """Keep the answers of a complete variant for later attempts."""
        header = json.dumps({"variant": questions.variant, "digest": questions.digest()})
        lines = [header, *(answer.model_dump_json() for answer in answers)]
        await self._objects.put(_key(self._attempt.prefix, questions.variant), ("\n".join(lines) + "\n").encode())


async def ask_all(
    endpoint: Endpoint,
    questions: Questions,
    concurrency: int,
    answered: Callable[[], Awaitable[None]],
) -> list[Answer]:
    """Ask all questions, at most `concurrency` at a time. The answers are in the order of the questions.

    `answered` is awaited after each answer. Raises what `Endpoint.ask` raises.
    """
    slots = asyncio.Semaphore(concurrency)

    async def ask(index: int, prompts: tuple[Prompt, ...]) -> Answer:
        async with slots:
            with nullcontext() if index < TRACED_QUESTIONS else telemetry.unrecorded():
                limit = questions.limit
                answer = await endpoint.ask(questions.model, prompts, limit.tokens, thinking=limit.thinking)
        await answered()
        return answer

    return await gather_or_cancel(ask(index, prompts) for index, prompts in enumerate(questions.prompts))


async def gather_or_cancel(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run the coroutines concurrently and return their results in order. If one fails, or the caller is cancelled, all
    are cancelled."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await cancel_and_wait(*tasks)


def _key(prefix: str, variant: Variant) -> str:
    return f"{prefix}answers-{variant}.jsonl"
