"""What a synthesis asks for, and what it makes of the replies."""

from __future__ import annotations

from collections import Counter

import pytest

from services.ingest.domain.synthesis import plan, prompts, replies
from services.ingest.domain.synthesis.budget import Left, cost, most
from services.ingest.domain.synthesis.plan import Seed
from services.ingest.domain.synthesis.replies import Refused
from services.ingest.domain.synthesis.spec import Budget, Prices
from tests.unit.ingest.synthesis.world import spec

VARIED = {"persona": ["p1", "p2"], "difficulty": ["d1", "d2"], "length": ["l1", "l2"], "language": ["e", "d"]}


def test_every_scenario_comes_up_equally_often_and_the_rest_varies() -> None:
    wanted = spec(count=60, vary=VARIED)
    takes = [plan.take(wanted, (), slot, 0) for slot in range(60)]
    assert set(Counter(take.scenario.name for take in takes).values()) == {30}
    variations = Counter((take.persona, take.difficulty, take.length, take.language) for take in takes)
    assert len(variations) == 16
    assert max(variations.values()) < 12


def test_another_attempt_varies_and_keeps_the_scenario() -> None:
    wanted = spec(vary=VARIED)
    takes = [plan.take(wanted, (), 3, attempt) for attempt in range(10)]
    assert len({take.scenario.name for take in takes}) == 1
    assert len({(take.persona, take.difficulty, take.length, take.language) for take in takes}) > 3
    assert takes[4] == plan.take(wanted, (), 3, 4)
    assert [plan.take(spec(vary=VARIED, seed=1), (), 3, n).persona for n in range(10)] != [t.persona for t in takes]


def test_the_prompts_hold_what_was_drawn_and_what_is_known() -> None:
    wanted = spec(vary=VARIED)
    take = next(take for slot in range(9) if (take := plan.take(wanted, [Seed("q?", "a!")], slot, 0)).scenario.facts)
    asked = prompts.query(wanted, take).messages[1]["content"]
    for part in ("answers customers of a shop", "refund", "Refunds take 5 days.", take.persona, take.language, "q?"):
        assert part in asked
    assert "a!" not in asked
    answer = prompts.answer(wanted, take, "Where is it?")
    assert answer.messages[1] == {"role": "user", "content": "Where is it?"}
    for part in ("You are kind.", "Refunds take 5 days.", "a!"):
        assert part in answer.messages[0]["content"]
    judged = prompts.judge(wanted, take, "Where?", "There.").messages
    assert "<message>\nWhere?\n</message>" in judged[1]["content"]
    assert prompts.judge(wanted, take, "Where?", "There.").temperature == 0


def test_no_request_of_two_attempts_is_the_same() -> None:
    wanted = spec(vary={"persona": ["p"], "difficulty": ["d"], "length": ["l"], "language": ["e"]}, scenarios=["s"])
    takes = [plan.take(wanted, (), slot, attempt) for slot in range(20) for attempt in range(3)]
    assert len({str(prompts.query(wanted, take).body("m")) for take in takes}) == 60


def test_the_bound_of_a_request_is_its_bytes_and_the_longest_reply() -> None:
    prompt = prompts.query(spec(), plan.take(spec(), (), 0, 0))
    bytes_ = sum(len(message["content"].encode()) for message in prompt.messages)
    bound = most(prompt, Prices(input=1.0, output=2.0))
    assert bytes_ < bound.input < bytes_ + 400
    assert bound.output == spec().max_tokens.query
    assert bound.money == pytest.approx((bound.input + 2 * bound.output) / 1e6)


def test_a_budget_has_no_room_beyond_its_end() -> None:
    left = Left(Budget(tokens=100), cost(60, 30, None))
    assert left.has(cost(5, 5, None))
    assert not left.has(cost(5, 6, None))
    in_money = Left(Budget(money=1.0), cost(0, 0, None).model_copy(update={"money": 0.9}))
    assert not in_money.has(cost(100_001, 0, Prices(input=1, output=1)))


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        ("", "stop", "empty"),
        (" \n", "stop", "empty"),
        ("<think>hm</think>", "stop", "empty"),
        ("<think>hm", "stop", "cut"),
        ("half a", "length", "cut"),
        ("a", "content_filter", "filtered"),
        ("a\0", "stop", "unreadable"),
    ],
)
def test_replies_that_make_no_row(text: str, finish_reason: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        replies.written(text, finish_reason, "answer")
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "text",
    ['"Where is it?"', "Message: Where is it?", "**Message:** “Where is it?”", "Where is it?", "User: 'Where is it?'"],
)
def test_a_query_is_the_message_alone(text: str) -> None:
    assert replies.message(replies.written(f"<think>hm</think>\n{text}\n", "stop", "query")) == "Where is it?"


def test_quotes_that_belong_to_a_query_stay() -> None:
    assert replies.message('"A" or "B"') == '"A" or "B"'
    assert replies.message("Message:") == "Message:"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 4, "reason": "ok"}', 4),
        ('```json\n{"score": "5"}\n```', 5),
        ('Thinking {of} it: {"reason": "bad", "score": 1.0}', 1),
        ("Score: 3", 3),
        ("4/5, good", 4),
        ('<think>{"score": 5}</think>**Score**: 2', 2),
    ],
)
def test_a_score_is_found(text: str, score: int) -> None:
    assert replies.score(text)[0] == score


@pytest.mark.parametrize(
    "text", ["", "great", '{"score": 7}', '{"score": 4.5}', '{"score": true}', "score: 45", "[[[["]
)
def test_no_score_is_made_up(text: str) -> None:
    with pytest.raises(Refused) as refused:
        replies.score(text)
    assert refused.value.reason == "not judged"
