"""Compares the trained turns of many rows with the render server, several requests at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass

from services.validate.domain.content import Row
from services.validate.domain.findings import Problem, problem
from services.validate.domain.report import FileRole, ServedCheck
from services.validate.domain.served import Difference, Turn, answer_difference, prompt_difference
from services.validate.domain.served.comparison import token_name
from services.validate.served.client import CONNECTIONS, Refused, RenderServer, Silent, TooLong, Unasked
from services.validate.tokenizer import Tokenizer

AHEAD = 8 * CONNECTIONS  # turns that are encoded before their comparison is due


@dataclass(frozen=True)
class Asked:
    """A row that is asked about."""

    role: FileRole
    row: Row


@dataclass
class _Outcome:
    difference: Difference | None = None
    too_long: bool = False
    note: str | None = None


class _Tally:
    """What has come out so far."""

    def __init__(self) -> None:
        self.rows = self.turns = self.differences = 0
        self.first: Problem | None = None
        self.first_in: FileRole = "training"
        self._too_long = 0
        self._notes: dict[str, None] = {}

    def add(self, asked: Asked, outcome: _Outcome) -> None:
        if outcome.too_long:
            self._too_long += 1
            return
        self.turns += 1
        if outcome.note:
            self._notes[outcome.note] = None
        if outcome.difference is not None:
            self.differences += 1
            if self.first is None:
                self.first, self.first_in = problem(asked.row.line, outcome.difference.finding()), asked.role

    @property
    def partly(self) -> tuple[str, ...]:
        """What could not be compared."""
        if not self._too_long:
            return tuple(self._notes)
        turns = f"{self._too_long:,} turn{'' if self._too_long == 1 else 's'}"
        return (*self._notes, f"{turns} not compared: longer than the server reads")


def compare(
    rows: Iterable[Asked],
    tokenizer: Tokenizer,
    server: RenderServer,
    *,
    version: str,
    stop_at_first: bool,
    advance: Callable[[FileRole, int], None],
) -> ServedCheck:
    """Ask about every trained turn of `rows`. `advance(role, rows)` is called for every row that is done; it may raise
    to end the comparison.

    `stop_at_first`: the first difference, in the order of the rows, ends the comparison.

    Raises:
        Cancelled: the server was told to stop.
    """
    tally = _Tally()
    reason = None
    with (
        ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="render") as pool,
        # closed before the pool, which waits for the requests under way: nothing is asked after the return
        closing(_outcomes(pool, rows, tokenizer, server)) as outcomes,
    ):
        try:
            for asked, outcome in outcomes:
                if outcome is None:
                    tally.rows += 1
                    advance(asked.role, tally.rows)
                    continue
                tally.add(asked, outcome)
                if stop_at_first and tally.differences:
                    break
        except Silent:
            reason = "it stopped answering"
        except Unasked as error:
            reason = str(error)
    return ServedCheck(
        rows=tally.rows,
        turns=tally.turns,
        differences=tally.differences,
        server=version,
        template=tokenizer.template,
        not_asked=reason,
        partly=tally.partly,
        probe=tokenizer.probe,
        first=tally.first,
        first_in=tally.first_in,
    )


def _outcomes(
    pool: ThreadPoolExecutor, rows: Iterable[Asked], tokenizer: Tokenizer, server: RenderServer
) -> Generator[tuple[Asked, _Outcome | None], None, None]:
    """The outcome of every turn, in the order of the rows, and None after the last of a row. Requests run ahead."""
    pending: deque[tuple[Asked, Future[_Outcome] | None]] = deque()
    try:
        for asked, turn in _turns(rows, tokenizer):
            pending.append((asked, None if turn is None else pool.submit(_ask, server, tokenizer, asked, turn)))
            if len(pending) > AHEAD:
                yield _taken(*pending.popleft())
        while pending:
            yield _taken(*pending.popleft())
    finally:
        for _, future in pending:
            if future is not None:
                future.cancel()


def _taken(asked: Asked, future: Future[_Outcome] | None) -> tuple[Asked, _Outcome | None]:
    return asked, None if future is None else future.result()


def _turns(rows: Iterable[Asked], tokenizer: Tokenizer) -> Iterator[tuple[Asked, Turn | None]]:
    """The turns of each row, and then None: the row is done."""
    for asked in rows:
        for turn in tokenizer.turns(asked.row):
            yield asked, turn
        yield asked, None


def _ask(server: RenderServer, tokenizer: Tokenizer, asked: Asked, turn: Turn) -> _Outcome:
    def named(token: int) -> str:
        piece, added = tokenizer.piece(token)
        return token_name(piece, added, asked.row.value)

    try:
        if different := prompt_difference(turn.field, turn.prompt, server.prompt(turn), named):
            return _Outcome(different)
        try:
            given = server.message(turn, turn.said)
        except Unasked as error:
            return _Outcome(note=f"answers were not compared: {error}")
        different, note = answer_difference(turn, given, tools_parsed=server.tools_parsed)
        if different and turn.stops:
            # some parsers want the stop token to close a call; what a server generates has it, a text never shows it
            with suppress(Refused):
                given = server.message(turn, turn.answer)
                again, noted = answer_difference(turn, given, tools_parsed=server.tools_parsed)
                if again is None:
                    return _Outcome(note=noted)
        return _Outcome(different, note=note)
    except TooLong:
        return _Outcome(too_long=True)
    except Refused as refused:
        message = f"the server refuses the request for this answer (status {refused.status}; its log says why)"
        return _Outcome(Difference(turn.field, message))
