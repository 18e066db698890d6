"""A run against a real HTTP server: what becomes a row, what is refused, and that nothing is asked twice."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from services.ingest.domain.synthesis import results
from services.ingest.domain.synthesis.history import Answered, Asked, History, Kept
from services.ingest.domain.synthesis.plan import Seed
from services.ingest.synthesis.run import Synthesis
from shared.errors import InputError, TransientError
from tests.support.fakes.language_model import FakeModel
from tests.support.waiting import until
from tests.unit.ingest.synthesis.world import JUDGED, MemoryJournal, run, spec, words, writer

NOW = {"retry-after": "0"}


def strong(answer: Callable[[str], str] = writer, **more: Any) -> FakeModel:
    return FakeModel({"strong": answer}, **more)


def bodies(model: FakeModel) -> Counter[str]:
    return Counter(json.dumps(body, sort_keys=True) for body in model.requests)


async def test_every_row_has_its_query_its_answer_and_where_it_comes_from() -> None:
    model = strong()
    outcome, journal = await run(model)
    assert (outcome.end, outcome.made) == ("complete", 10)
    rows = [json.loads(line) for line in results.rows(spec(), journal.history)]
    assert len(rows) == 10
    system, user, assistant = rows[0]["messages"]
    assert system == {"role": "system", "content": "You are kind."}
    assert (user["role"], user["content"]) == ("user", f"Case 1: {words('1')}")
    assert assistant == {"role": "assistant", "content": f"answer to {user['content']}"}
    assert rows[0]["metadata"] == {
        "source": "synthesis",
        "model": "strong",
        "scenario": rows[0]["metadata"]["scenario"],
        "persona": rows[0]["metadata"]["persona"],
        "difficulty": rows[0]["metadata"]["difficulty"],
        "length": rows[0]["metadata"]["length"],
        "language": "English",
        "slot": "0",
        "attempt": "0",
        "judge": "strong",
        "judge_score": "5",
    }
    assert {row["metadata"]["scenario"] for row in rows} == {"late parcel", "refund"}
    assert model.most_under_way == 4
    assert journal.history.used.output == sum(len(model.models["strong"](said(body))) for body in model.requests)


def said(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


async def test_a_row_that_the_judge_dislikes_is_made_anew_with_another_variation() -> None:
    def strict(said: str) -> str:
        if "<message>" in said and "Case 3:" in said:
            return '{"score": 2, "reason": "wrong"}'
        return writer(said)

    outcome, journal = await run(strong(strict))
    assert (outcome.end, outcome.made) == ("complete", 10)
    assert journal.history.reasons() == {"judged low": 1}
    assert journal.history.kept[2].query.startswith("Case 3, version 2:")


async def test_what_no_attempt_makes_good_is_given_up_and_counted() -> None:
    outcome, journal = await run(
        strong(lambda said: '{"score": 3}' if "Case 3" in said and "<message>" in said else writer(said)), attempts=2
    )
    assert (outcome.end, outcome.made) == ("complete", 9)
    report = results.report(spec(attempts=2), journal.history, outcome.end, 20.0, outcome.made, None)
    assert (report["made"], report["given_up"], report["refused"]) == (9, 1, {"judged low": 2})
    assert report["requests"] == 9 * 3 + 2 * 3
    # with more attempts, the same journal goes on
    outcome, _ = await run(strong(), journal, attempts=3)
    assert (outcome.end, outcome.made) == ("complete", 1)


async def test_without_a_judge_nobody_is_asked_for_a_score() -> None:
    model = strong()
    outcome, journal = await run(model, judge=None)
    assert outcome.made == 10
    assert len(model.requests) == 20
    assert {kept.score for kept in journal.history.kept.values()} == {None}


async def test_a_judge_may_be_another_model() -> None:
    model = FakeModel({"strong": writer, "strict": lambda said: JUDGED})
    judge = {"model": "strict", "prices": {"input": 10, "output": 10}}
    _, journal = await run(model, judge=judge)
    assert Counter(body["model"] for body in model.requests) == {"strong": 20, "strict": 10}
    judged = [a for id, a in journal.history.answers.items() if id.endswith("judge")]
    assert judged[0].cost.money == pytest.approx(judged[0].cost.tokens * 10 / 1e6)


def repeating(said: str) -> str:
    """The first version of every query is nearly the same, and like the seed."""
    if re.search(r"Write message number \d+\.$", said):
        return "My parcel with the blue shoes for my daughter has not arrived since Monday" + "!" * (len(said) % 3)
    return writer(said)


async def test_a_query_that_nearly_repeats_another_is_refused_before_its_answer_is_paid_for() -> None:
    model = strong(repeating)
    outcome, journal = await run(model, count=4)
    assert outcome.made == 4
    assert journal.history.reasons() == {"near-duplicate": 3}
    assert len(model.requests) == 4 * 3 + 3
    assert "resembles: My parcel" in str(journal.history.dropped)


async def test_a_query_that_nearly_repeats_a_seed_is_refused() -> None:
    seed = Seed("my parcel with the blue shoes for my daughter has not arrived since monday", "It will.")
    _, journal = await run(strong(repeating), count=4, seeds=(seed,))
    assert journal.history.reasons() == {"near-duplicate": 4}


async def test_near_duplicates_may_stay() -> None:
    _, journal = await run(strong(repeating), count=4, near_duplicates=None)
    assert not journal.history.reasons()


async def test_a_query_whose_answer_was_refused_may_be_asked_again() -> None:
    def empty_once(said: str) -> str:
        if "Write message number" in said:
            return "Where is my parcel with the blue shoes?"
        if "<message>" not in said and not refused:
            refused.append(said)
            return ""
        return writer(said)

    refused: list[str] = []
    outcome, journal = await run(strong(empty_once), count=1)
    assert (outcome.made, journal.history.reasons()) == (1, {"empty": 1})


# --- ends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [{"money": 0.02}, {"tokens": 25_000}, {"money": 0.02, "tokens": 25_000}])
async def test_the_budget_is_never_passed_and_a_larger_one_goes_on(budget: dict[str, float]) -> None:
    def watch(history: History) -> None:
        most.append((history.used.money, history.used.tokens))

    most: list[tuple[float, int]] = []
    model = strong()
    outcome, journal = await run(model, count=40, budget=budget, progress=watch)
    made = outcome.made
    assert outcome.end == "budget"
    assert 0 < made < 40
    assert max(money for money, _ in most) <= budget.get("money", 1e9)
    assert max(tokens for _, tokens in most) <= budget.get("tokens", 1e9)
    # no query is paid for without the means for its answer
    assert len(model.requests) == 3 * made
    report = results.report(spec(count=40, budget=budget), journal.history, outcome.end, 20.0, made, None)
    assert report["rest"]["tokens"] == pytest.approx(journal.history.used.tokens / made * (40 - made), abs=2)

    outcome, _ = await run(model, journal, count=40)
    assert (outcome.end, outcome.made) == ("complete", 40 - made)
    assert set(bodies(model).values()) == {1}


async def test_a_budget_too_small_for_one_row_asks_nothing() -> None:
    model = strong()
    outcome, _ = await run(model, budget={"tokens": 500})
    assert (outcome.end, outcome.made, model.requests) == ("budget", 0, [])


async def test_a_lost_reply_counts_as_much_as_it_may_have_cost() -> None:
    failures = [(500, NOW), (502, NOW), (504, NOW)]
    outcome, journal = await run(strong(failures=failures))
    assert outcome.made == 10
    assert journal.history.lost == 3
    asked = {(e.id, e.number): e.cost for e in journal.entries if isinstance(e, Asked)}
    answered = {(e.id, e.number) for e in journal.entries if isinstance(e, Answered)}
    assert journal.history.unanswered.tokens == sum(asked[lost].tokens for lost in asked.keys() - answered)
    assert journal.history.used.tokens == journal.history.spent.tokens + journal.history.unanswered.tokens


async def test_a_request_that_was_turned_away_costs_nothing() -> None:
    outcome, journal = await run(strong(failures=[(429, NOW), (503, NOW), (429, NOW)]))
    assert outcome.made == 10
    assert (journal.history.lost, journal.history.unanswered.tokens, journal.history.requests) == (0, 0, 30)


async def test_replies_that_are_lost_again_and_again_do_not_pass_the_budget() -> None:
    model = strong(failures=[(500, NOW)] * 10_000)
    outcome, journal = await run(model, budget={"tokens": 40_000})
    assert (outcome.end, outcome.made) == ("budget", 0)
    assert journal.history.used.tokens <= 40_000
    assert len(model.requests) == journal.history.lost


async def test_a_server_that_does_not_keep_max_tokens_ends_the_run() -> None:
    outcome, journal = await run(strong(lambda said: "a" * 500), concurrency=1)
    assert outcome.end == "failed"
    assert isinstance(outcome.error, InputError)
    assert outcome.error.param == "max_tokens.query"
    assert journal.history.spent.output == 500


@pytest.mark.parametrize(
    ("status", "param", "said"),
    [(401, "endpoint.key", "refuses"), (403, "endpoint.key", "refuses"), (404, "endpoint", "does not know the model")],
)
async def test_a_wrong_key_or_model_ends_the_run_at_once_and_costs_nothing(status: int, param: str, said: str) -> None:
    model = strong(failures=[(status, {})] * 100)
    outcome, journal = await run(model)
    assert outcome.end == "failed"
    assert isinstance(outcome.error, InputError)
    assert outcome.error.param == param
    assert said in outcome.error.message
    assert len(model.requests) <= 4
    assert journal.history.used.tokens == 0


async def test_a_request_that_is_refused_ends_the_run_only_if_it_is_the_first_of_its_kind() -> None:
    outcome, _ = await run(strong(failures=[(400, {})]), concurrency=1)
    assert isinstance(outcome.error, InputError)
    assert "refuses the first query: 400: try later" in outcome.error.message

    def refuse_next(said: str) -> str:
        if "Case 2:" in said and "<message>" not in said:
            model.failures.append((400, {}))  # the judge's request
        return writer(said)

    model = strong(refuse_next)
    outcome, journal = await run(model, concurrency=1)
    assert outcome.made == 10
    assert journal.history.reasons() == {"refused by the endpoint": 1}


async def test_it_is_told_what_the_run_waits_for() -> None:
    def started(synthesis: Synthesis) -> None:
        running.append(synthesis)

    running: list[Synthesis] = []
    told: list[str | None] = []
    await run(
        strong(failures=[(503, NOW)]), started=started, progress=lambda history: told.append(running[0].waiting_for)
    )
    assert "answers 503 (try later)" in str(told[0])
    assert told[-1] is None


async def test_an_endpoint_that_asks_for_too_long_a_pause_ends_the_run() -> None:
    outcome, journal = await run(strong(failures=[(429, {"retry-after": "86400"})] * 9))
    assert isinstance(outcome.error, TransientError)
    assert journal.history.used.tokens == 0


async def test_a_stop_keeps_the_replies_under_way_and_asks_for_no_more() -> None:
    def started(synthesis: Synthesis) -> None:
        def stop_at_20(said: str) -> str:
            if len(model.requests) >= 20:
                synthesis.stop()
            return writer(said)

        model.models["strong"] = stop_at_20

    model = strong()
    outcome, journal = await run(model, started=started)
    assert outcome.end == "stopped"
    assert journal.history.lost == 0
    assert 20 <= len(model.requests) <= 24

    outcome, _ = await run(strong_again := strong(), journal)
    assert (outcome.end, len(journal.history.kept)) == ("complete", 10)
    assert max((bodies(model) + bodies(strong_again)).values()) == 1


async def test_a_journal_of_other_settings_is_refused() -> None:
    _, journal = await run(strong(), count=1)
    with pytest.raises(InputError, match="only count, attempts, budget"):
        await run(strong(), journal, system="Be rude.")


async def test_settings_may_change_as_long_as_nothing_was_paid_for() -> None:
    outcome, journal = await run(strong(failures=[(401, {})] * 9))
    assert outcome.end == "failed"
    outcome, _ = await run(strong(), journal, system="Be brief.")
    assert outcome.end == "complete"


# --- kills --------------------------------------------------------------------------------------------------------


async def test_wherever_a_run_is_killed_the_next_one_asks_for_nothing_that_was_answered() -> None:
    """The journal is cut after every one of its lines, as a kill may do it."""

    def fussy(said: str) -> str:
        if "<message>" in said and "Case 2:" in said:
            return '{"score": 1}'
        return repeating(said)

    whole, journal = await run(strong(fussy), count=4, concurrency=2)
    assert whole.made == 4
    assert {"near-duplicate"} <= set(journal.history.reasons())
    lines = list(journal.lines)
    for cut in range(0, len(lines), 4):
        left = MemoryJournal(lines[:cut])
        answered, spent = set(left.history.answers), left.history.used
        decided = [entry for entry in left.entries if isinstance(entry, Kept)]
        outcome, resumed = await run(strong(fussy), left, count=4, concurrency=2)
        assert outcome.end == "complete"
        asked = Counter(e.id for e in resumed.entries if isinstance(e, Asked))
        assert all(asked[id] == 1 for id in answered)
        assert len(resumed.history.kept) == 4
        assert all(resumed.history.kept[kept.slot] == kept for kept in decided)
        assert resumed.history.used.tokens >= spent.tokens - left.history.unanswered.tokens


async def test_what_the_server_has_counted_is_within_the_budget_after_any_number_of_kills_and_lost_replies() -> None:
    counted = 0

    def counting(said: str) -> str:
        nonlocal counted
        reply = writer(said)
        body = next(body for body in model.requests if body["messages"][-1]["content"] == said)
        counted += sum(len(message["content"]) for message in body["messages"]) + len(reply)
        return reply

    budget = {"tokens": 120_000}
    lines: list[bytes] = []
    model, ends = strong(counting), []
    while ends[-1:] != ["budget"]:
        model.failures += [(500, NOW), (429, NOW)]
        killed_at = len(model.requests) + 17
        task = asyncio.create_task(run(model, MemoryJournal(lines), count=100, budget=budget))
        await until(lambda task=task, at=killed_at: task.done() or len(model.requests) >= at, "a kill", 60)
        task.cancel()
        [ended] = await asyncio.gather(task, return_exceptions=True)
        ends.append("killed" if isinstance(ended, BaseException) else ended[0].end)
    assert ends.count("killed") >= 3
    left = MemoryJournal(lines)
    assert counted <= left.history.used.tokens <= budget["tokens"]
    assert len(left.history.kept) > 20


async def test_the_journal_says_what_may_be_spent_before_it_is_and_what_came_before_it_is_used() -> None:
    _, journal = await run(strong())
    open_: set[tuple[str, int]] = set()
    for before, entry in pairwise(journal.entries):
        if isinstance(entry, Asked):
            open_.add((entry.id, entry.number))
        elif isinstance(entry, Answered):
            open_.remove((entry.id, entry.number))
        elif isinstance(entry, Kept):
            assert f"{entry.slot}.{entry.attempt}.judge" in journal.history.answers
        assert before is not None
    assert not open_
