"""Asks the requests of a synthesis: each is in the journal before it is sent, and its reply before it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from services.ingest.domain.synthesis.budget import Cost, cost, most
from services.ingest.domain.synthesis.history import Answered, Asked, Unspent
from services.ingest.domain.synthesis.prompts import Prompt
from services.ingest.domain.synthesis.replies import Refused
from services.ingest.domain.synthesis.spec import Prices, Step
from services.ingest.synthesis.client import CODE, ChatClient, NotBegun, RequestRefused, Unavailable
from services.ingest.synthesis.journal import Journal
from services.ingest.synthesis.pace import Pace
from services.ingest.synthesis.purse import Purse
from shared.errors import InputError, TransientError


class Stopped(Exception):
    """The run is to stop, and this request is not sent any more."""


@dataclass(frozen=True)
class Server:
    """What answers a step: an endpoint, a model of it, its prices, and its pace."""

    client: ChatClient
    model: str
    prices: Prices | None
    pace: Pace


@dataclass
class Asking:
    """Asks, and tries again while the endpoint is busy or away."""

    servers: dict[Step, Server]
    journal: Journal
    purse: Purse
    stopping: asyncio.Event
    clock: Callable[[], float]
    changed: Callable[[], None] = lambda: None
    """Called when `waiting_for` changes."""
    waiting_for: str | None = None
    """Why the endpoint did not answer the last request."""
    _works: set[Step] = field(default_factory=set)
    """The steps of which a request was answered: then the next one that is refused is to blame itself."""

    def __post_init__(self) -> None:
        steps = {id.rpartition(".")[2] for id in self.journal.history.answers}
        self._works |= {step for step in self.servers if step in steps}

    def most(self, prompt: Prompt) -> Cost:
        """The most that a request may cost."""
        return most(prompt, self.servers[prompt.step].prices)

    async def ask(self, prompt: Prompt, who: object, rest: Cost) -> Answered:
        """The reply to a request: that of the journal, else that of the endpoint. The attempt `who` also holds
        `rest`, for what may come after it.

        Raises:
            Stopped: the run is to stop.
            BudgetReached: there is no budget for it, or none to ask again for a reply that was lost.
            Refused: the endpoint does not take this request.
            TransientError: the endpoint is away for too long.
            InputError: the endpoint takes no request at all, or passes the budget.
        """
        if found := self.journal.history.answers.get(prompt.id):
            return found
        answered = None
        while answered is None:
            # a reply that was lost counts in full, because nobody knows what it cost: another one needs as much again
            await self.purse.ensure(who, self.most(prompt) + rest)
            answered = await self._try(prompt, who, rest)
            await self.purse.moved()
        self._check(prompt, answered)
        return answered

    async def _try(self, prompt: Prompt, who: object, rest: Cost) -> Answered | None:
        """Send a request once. None: it is to be sent again. Raises as `ask` does."""
        server, price = self.servers[prompt.step], self.most(prompt)
        async with server.pace.turn(price.tokens) as ticket:
            if self.stopping.is_set():
                raise Stopped
            asked = Asked(id=prompt.id, number=self.journal.history.next_number(prompt.id), cost=price)
            self.purse.asking(who, rest)
            await self.journal.append(asked)
            began = self.clock()
            try:
                reply = await server.client.complete(prompt.body(server.model))
            except Unavailable as error:
                self._wait_for(str(error))
                patient = server.pace.failed(began, error.wait)
                if not error.spent:
                    ticket.tokens = 0
                    await self._unspent(asked, who)
                if not patient:
                    message = f"{error}, for too long or with too long a pause; run the same command again later"
                    raise TransientError(message) from None
                return None
            except RequestRefused as error:
                server.pace.succeeded()
                await self._unspent(asked, who)
                raise self._verdict(prompt, error) from None
            except NotBegun as error:
                await self._unspent(asked, who)
                raise error.reason from None
            server.pace.succeeded()
            self._wait_for(None)
            self._works.add(prompt.step)
            known = reply.input_tokens is not None and reply.output_tokens is not None
            real = cost(reply.input_tokens or 0, reply.output_tokens or 0, server.prices) if known else price
            ticket.tokens = real.tokens
            answered = Answered(
                id=asked.id,
                number=asked.number,
                text=reply.text.encode("utf-8", "backslashreplace").decode(),
                finish_reason=reply.finish_reason,
                cost=real,
                seconds=round(self.clock() - began, 3),
            )
            await self.journal.append(answered)
            return answered

    def _wait_for(self, trouble: str | None) -> None:
        if trouble != self.waiting_for:
            self.waiting_for = trouble
            self.changed()

    async def _unspent(self, asked: Asked, who: object) -> None:
        self.purse.unspent(who, asked.cost)
        await self.journal.append(Unspent(id=asked.id, number=asked.number))

    def _check(self, prompt: Prompt, answered: Answered) -> None:
        """Raise InputError if a reply took more than the most that it may take."""
        real, price = answered.cost, self.most(prompt)
        if real.output > price.output or real.input > price.input:
            raise InputError(
                CODE,
                f"the endpoint counts {real.input:,} and {real.output:,} tokens of a request of at most "
                f"{price.input:,} and {price.output:,}: it does not keep max_tokens, so no budget can be kept with it.",
                f"max_tokens.{prompt.step}",
            )

    def _verdict(self, prompt: Prompt, error: RequestRefused) -> Exception:
        if error.filtered:
            return Refused("filtered", str(error))
        if prompt.step in self._works:
            return Refused("refused by the endpoint", str(error))
        return InputError(CODE, f"the endpoint refuses the first {prompt.step}: {error}.", "model")
