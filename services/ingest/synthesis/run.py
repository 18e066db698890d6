"""Runs a synthesis: rows in parallel, each a query, an answer and a judgement, until all are made, the budget is
reached, or the run is to stop. Whatever ends it, the same journal goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Literal

from services.ingest.domain.synthesis import plan, prompts, replies
from services.ingest.domain.synthesis.budget import total
from services.ingest.domain.synthesis.history import Begun, Dropped, History, Kept, Taken
from services.ingest.domain.synthesis.plan import Seed, Take
from services.ingest.domain.synthesis.prompts import Prompt
from services.ingest.domain.synthesis.replies import Refused
from services.ingest.domain.synthesis.spec import Endpoint, Prices, Step, SynthesisSpec
from services.ingest.synthesis.asking import Asking, Server, Stopped
from services.ingest.synthesis.client import ChatClient
from services.ingest.synthesis.journal import Journal
from services.ingest.synthesis.near_duplicates import NearDuplicates
from services.ingest.synthesis.pace import Pace
from services.ingest.synthesis.purse import BudgetReached, Purse
from shared.errors import InputError
from shared.tasks import cancel_and_wait, wait_for_event

End = Literal["complete", "budget", "stopped", "failed"]
KeyOf = Callable[[Endpoint], str | None]


@dataclass(frozen=True)
class Outcome:
    """How a run has ended. `error`: what has failed. `seconds` and `made` are of this run alone."""

    end: End
    seconds: float
    made: int
    error: Exception | None = None


class Synthesis:
    """A run of one synthesis on its journal."""

    def __init__(
        self,
        spec: SynthesisSpec,
        seeds: Sequence[Seed],
        journal: Journal,
        *,
        key_of: KeyOf,
        clock: Callable[[], float] = time.monotonic,
        progress: Callable[[History], None] = lambda history: None,
    ) -> None:
        """`key_of` knows the API key of an endpoint. `progress` is called after each reply and each decision,
        and when `waiting_for` changes."""
        self._spec = spec
        self._seeds = tuple(seeds)
        self._journal = journal
        self._key_of = key_of
        self._clock = clock
        self._progress = progress
        self._stopping = asyncio.Event()
        self._ended: End | None = None
        self._error: Exception | None = None
        self._near = NearDuplicates(spec.near_duplicates) if spec.near_duplicates else None
        self._asking: Asking | None = None

    def stop(self) -> None:
        """Send no more requests; what is under way is still waited for and kept."""
        self._stopping.set()

    @property
    def waiting_for(self) -> str | None:
        """Why the endpoint did not answer the last request; None if it did."""
        return self._asking.waiting_for if self._asking else None

    async def run(self) -> Outcome:
        """Make rows until the end. What fails is in the outcome.

        Raises:
            InputError: the journal is of another synthesis, or there is no API key.
        """
        history, began = self._journal.history, self._clock()
        before = len(history.kept)
        await self._begin(history)
        async with AsyncExitStack() as stack:
            purse = Purse(self._spec.budget, history)
            servers = await self._servers(stack)
            asking = self._asking = Asking(servers, self._journal, purse, self._stopping, self._clock, self._tell)
            slots = self._open_slots(history)
            workers = [asyncio.create_task(self._work(slots, asking, purse)) for _ in range(self._spec.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                await cancel_and_wait(*workers)
        end = self._ended or ("stopped" if self._stopping.is_set() else "complete")
        return Outcome(end, self._clock() - began, len(history.kept) - before, self._error)

    def _tell(self) -> None:
        self._progress(self._journal.history)

    async def _begin(self, history: History) -> None:
        digest = self._spec.digest([[seed.query, seed.answer] for seed in self._seeds])
        if history.digest is None or (history.digest != digest and not history.requests):
            await self._journal.append(Begun(digest=digest))
        elif history.digest != digest:
            raise InputError(
                "other_synthesis",
                "what was made so far belongs to other settings: only count, attempts, budget, prices, limits, "
                "address, max_tokens and temperature may change. Give the new settings another name, or undo this.",
            )
        if self._near:
            for number, seed in enumerate(self._seeds):
                self._near.add(("seed", number), seed.query)
            for owner, query in history.taken.items():
                self._near.add(owner, query)

    async def _servers(self, stack: AsyncExitStack) -> dict[Step, Server]:
        spec, judge = self._spec, self._spec.judge

        async def server(endpoint: Endpoint, field: str, model: str, prices: Prices | None) -> Server:
            client = ChatClient(endpoint, self._key_of(endpoint), spec.timeout_seconds, field)
            pace = Pace(spec.requests_per_minute, spec.tokens_per_minute, clock=self._clock, rest=self._rest)
            return Server(await stack.enter_async_context(client), model, prices, pace)

        writer = await server(spec.endpoint, "endpoint", spec.model, spec.prices)
        servers: dict[Step, Server] = {"query": writer, "answer": writer}
        if judge and judge.endpoint:
            servers["judge"] = await server(
                judge.endpoint, "judge.endpoint", judge.model or spec.model, judge.prices or spec.prices
            )
        elif judge:
            servers["judge"] = Server(
                writer.client, judge.model or spec.model, judge.prices or spec.prices, writer.pace
            )
        return servers

    async def _rest(self, seconds: float) -> None:
        if await wait_for_event(self._stopping, seconds):
            raise Stopped

    def _open_slots(self, history: History) -> Iterator[int]:
        return (
            slot
            for slot in range(self._spec.count)
            if slot not in history.kept and history.attempts(slot) < self._spec.attempts
        )

    async def _work(self, slots: Iterator[int], asking: Asking, purse: Purse) -> None:
        for slot in slots:
            if self._stopping.is_set() or self._ended:
                return
            try:
                await self._row(slot, asking, purse)
            except Stopped:
                return
            except BudgetReached:
                if not self._stopping.is_set():
                    self._ended = "budget"
                return
            except Exception as error:
                # the others keep the replies that are under way
                self._ended, self._error = "failed", self._error or error
                self.stop()
                return

    async def _row(self, slot: int, asking: Asking, purse: Purse) -> None:
        history = self._journal.history
        while (attempt := history.attempts(slot)) < self._spec.attempts:
            take = plan.take(self._spec, self._seeds, slot, attempt)
            try:
                await self._attempt(take, asking, purse)
                return
            except Refused as refused:
                if self._near:
                    self._near.remove((slot, attempt))
                await self._journal.append(
                    Dropped(slot=slot, attempt=attempt, reason=refused.reason, detail=str(refused))
                )
            finally:
                self._tell()

    async def _attempt(self, take: Take, asking: Asking, purse: Purse) -> None:
        expected = {prompt.step: asking.most(prompt) for prompt in prompts.expected(self._spec, take)}
        open_steps = [step for step in expected if take.id_of(step) not in self._journal.history.answers]
        owner = (take.slot, take.attempt)
        async with purse.holding(owner, total(expected[step] for step in open_steps)):

            async def ask(prompt: Prompt) -> tuple[str, str | None]:
                later = list(expected)[list(expected).index(prompt.step) + 1 :]
                rest = total(expected[step] for step in later if step in open_steps)
                answered = await asking.ask(prompt, owner, rest)
                self._tell()
                return answered.text, answered.finish_reason

            asked = replies.message(self._text("query", *await ask(prompts.query(self._spec, take))))
            await self._take(take, asked)
            answered = self._text("answer", *await ask(prompts.answer(self._spec, take, asked)))
            score = None
            if self._spec.judge:
                judgement, _ = await ask(prompts.judge(self._spec, take, asked, answered))
                score, reason = replies.score(judgement)
                if score < self._spec.judge.min_score:
                    raise Refused("judged low", f"{score}: {reason}"[:500])
            await self._journal.append(
                Kept(slot=take.slot, attempt=take.attempt, query=asked, answer=answered, score=score)
            )

    def _text(self, step: Literal["query", "answer"], text: str, finish_reason: str | None) -> str:
        return replies.written(text, finish_reason, step)

    async def _take(self, take: Take, asked: str) -> None:
        """Refuse a query that nearly repeats another one; later ones are compared with it."""
        owner = (take.slot, take.attempt)
        if owner in self._journal.history.taken:  # decided before the last kill: the same again
            return
        if self._near:
            if like := self._near.like(asked):
                raise Refused("near-duplicate", f"resembles: {like}"[:500])
            self._near.add(owner, asked)
        await self._journal.append(Taken(slot=take.slot, attempt=take.attempt, query=asked))
