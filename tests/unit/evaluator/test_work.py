"""The whole stage with a real HTTP server: event in, event and reports out; an attempt continues where an earlier one
died."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from services.evaluator import answers
from services.evaluator.work import EvaluateWork
from shared.base import BaseProfile
from shared.conversation import ChatTemplate, sent_messages
from shared.errors import InputError, TransientError
from shared.events import EvalCompleted, Job, JobProgress, Retry, Split
from shared.settings import EvaluatorSettings, InferenceSettings, Settings
from shared.stages.adoption import retry_of
from shared.stages.ledger import job_key
from tests.support.data.datasets import lines
from tests.support.data.jobs import make_attempt, make_job, make_training
from tests.support.data.micro_base import make_tokenizer
from tests.support.fakes.language_model import FakeModel, serve
from tests.support.fakes.store import FakeStore
from tests.support.scrape import scrape
from tests.support.spans import Spans, parent_id
from tests.unit.shared.conversation.rows import DUMP, DUMP_PARTS

BASE, TUNED = "base-model", "ft:base-model:org::12345678"
CITIES = ["Oslo", "Rome", "Cairo", "Lima", "Kyiv", "Paris", "Accra", "Seoul", "Quito", "Delhi", "Turin", "Perth"]


def house_style(city: str) -> str:
    return f"Dear customer, the parcel to {city} arrives in two days. Kind regards!"


def question(text: str) -> str:
    return text.rsplit(" ", 1)[-1].rstrip("?")


def chat_rows(cities: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "system", "content": "You help."},
                {"role": "user", "content": f"When does my parcel come to {city}?"},
                {"role": "assistant", "content": house_style(city)},
            ]
        }
        for city in cities
    ]


def models(
    base: Callable[[str], str] = lambda text: "I do not know.",
    tuned: Callable[[str], str] = lambda text: house_style(question(text)),
) -> dict[str, Callable[[str], str]]:
    return {BASE: base, TUNED: tuned}


async def request_for(
    objects: FakeStore, test: list[dict[str, Any]] | None, train: list[dict[str, Any]], **more: Any
) -> dict[str, Any]:
    async def split(name: str, rows: list[dict[str, Any]]) -> Split:
        return Split(reference=await objects.put(f"{name}.jsonl", lines(*rows)), examples=len(rows), tokens=1)

    training = make_training(
        model=TUNED,
        base=BASE,
        test=await split("test", test) if test is not None else None,
        train=await split("train", train),
        **more,
    )
    return training.model_dump(mode="json", exclude_none=True)


def job(**spec: Any) -> Job:
    return make_job(spec=spec, base=BASE, model=TUNED, alias="support")


async def run(
    objects: FakeStore,
    model: FakeModel,
    request: dict[str, Any],
    *,
    number: int = 1,
    of: Job | None = None,
    timeout: float = 60.0,
    **spec: Any,
) -> tuple[EvalCompleted, list[JobProgress]]:
    attempt, progress = make_attempt(of or job(**spec), "evaluator", number=number, request=request)
    async with serve(model) as url:
        settings = Settings(inference=InferenceSettings(url=url), evaluator=EvaluatorSettings(timeout_seconds=timeout))
        event = await EvaluateWork(objects, settings)(attempt)
    assert isinstance(event, EvalCompleted)
    return event, progress


async def test_a_better_model_passes_and_the_report_has_every_answer() -> None:
    objects, model = FakeStore(), FakeModel(models())
    event, progress = await run(objects, model, await request_for(objects, chat_rows(CITIES), chat_rows(CITIES[:4])))
    assert event.passed and event.metric == "rouge_l" and event.examples == 12
    assert event.scores["tuned"]["exact_match"] == 1.0
    assert event.scores["base"]["rouge_l"] < 0.2
    assert event.delta.low > 0.5
    report = json.loads(await objects.read(event.report))
    rows = report["evaluation"]["rows"]
    assert [row["example"]["line"] for row in rows] == list(range(1, 13))
    assert rows[0]["answers"]["tuned"]["answer"]["text"] == house_style("Oslo")
    assert set(rows[0]["answers"]) == {"base", "few_shot", "tuned"}
    assert {edge["prompt"]["name"] for edge in report["edges"]} >= {"empty", "very long", "jailbreak", "emoji"}
    page = (await objects.read(event.html)).decode()
    assert house_style("Oslo") in page and "Better than its base: promoted" in page
    assert (progress[-1].step, progress[-1].total_steps) == (12 * 3 + 40 * 2 + 16 * 2,) * 2
    parts = {"base", "few_shot", "tuned", "general_base", "general_tuned", "edge prompts"}
    assert {event.data["part"] for event in progress} == parts


async def test_what_each_variant_was_asked_is_below_its_span_in_the_jobs_trace(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "TRACED_QUESTIONS", 5)
    objects, model = FakeStore(), FakeModel(models())
    await run(objects, model, await request_for(objects, chat_rows(CITIES), chat_rows(CITIES[:4])))
    names = [span.name for span in spans.all]
    parts = ["base", "few_shot", "tuned", "general_base", "general_tuned", "edge_prompts"]
    assert names == [f"evaluator.{name}" for name in ("load", *parts, "score", "report")]
    traceparents = [headers["traceparent"] for headers in model.headers]
    for part in parts:
        asked = [given for given in traceparents if given.split("-")[2] == parent_id(spans.one(f"evaluator.{part}"))]
        recorded = sum(int(given.split("-")[3], 16) & 1 for given in asked)
        expected = (32, 32) if part == "edge_prompts" else (40, 5) if part.startswith("general") else (12, 5)
        assert (len(asked), recorded) == expected
    assert len(traceparents) == 12 * 3 + 40 * 2 + 32
    tuned = spans.one("evaluator.tuned")
    assert dict(tuned.attributes or {}) == {
        "tunestream.model": TUNED,
        "tunestream.examples": 12,
        "tunestream.reused": False,
    }
    assert "Oslo" not in "".join(span.to_json() for span in spans.all)


async def test_prompts_of_the_job_are_asked_of_base_and_tuned_model_and_remedies_follow_a_bad_training() -> None:
    objects, model = FakeStore(), FakeModel(models())
    overfitting = {"verdict": "overfitting", "reason": "it rose", "best_step": 10}
    request = await request_for(
        objects, chat_rows(CITIES), chat_rows(CITIES[:4]), overfitting=overfitting, steps=40, epochs=4
    )
    event, progress = await run(objects, model, request, evaluation={"prompts": ["What do you know of Lyon?"]})
    report = json.loads(await objects.read(event.report))
    assert [one["tuned"]["text"] for one in report["own"]] == [house_style("Lyon")]
    assert len(report["edges"]) == 16 and progress[-1].step == progress[-1].total_steps
    page = (await objects.read(event.html)).decode()
    assert "What do you know of Lyon?" in page and "best at step 10 of 40, which is epoch 1 of 4" in page


async def test_a_model_that_is_no_better_is_not_promoted() -> None:
    objects, model = FakeStore(), FakeModel(models(tuned=lambda text: "I do not know."))
    event, _ = await run(objects, model, await request_for(objects, chat_rows(CITIES), chat_rows(CITIES[:4])))
    assert not event.passed
    assert "Not shown to be better" in event.reasons[0]
    assert "Not promoted" in (await objects.read(event.html)).decode()


async def test_labels_are_judged_by_accuracy_and_macro_f1() -> None:
    def rows(count: int) -> list[dict[str, Any]]:
        return [{"prompt": f"{index} ->", "completion": "even" if index % 2 == 0 else "odd"} for index in range(count)]

    def parity(text: str) -> str:
        return "Even." if int(text.rsplit("\n", 1)[-1].split(maxsplit=1)[0]) % 2 == 0 else "Odd."

    objects = FakeStore()
    model = FakeModel(models(base=lambda text: "even", tuned=lambda text: parity(text) if "->" in text else "?"))
    event, _ = await run(objects, model, await request_for(objects, rows(30), rows(30)))
    assert event.metric == "accuracy" and event.passed
    assert event.scores["base"]["accuracy"] == 0.5
    assert event.scores["base"]["macro_f1"] == pytest.approx(1 / 3)
    assert event.scores["tuned"]["macro_f1"] == 1.0
    assert any("stop" in request for request in model.requests)  # few-shot, by /v1/completions


async def test_fifty_document_types_are_labels_and_the_report_shows_what_is_taken_for_what() -> None:
    kinds = [f"type-{index}" for index in range(50)]
    rows = [{"prompt": f"Document {index} ->", "completion": kinds[index % 50]} for index in range(250)]

    def sorter(text: str) -> str:
        number = int(text.split()[1]) if text.startswith("Document") else 0
        return kinds[number % 50 if number % 50 != 7 else 8]

    objects, model = FakeStore(), FakeModel(models(base=lambda text: "type-0", tuned=sorter))
    event, _ = await run(objects, model, await request_for(objects, rows[:100], rows), evaluation={"few_shot": 0})
    assert event.metric == "accuracy" and event.passed
    assert event.scores["tuned"]["accuracy"] == 0.98
    matrix = json.loads(await objects.read(event.report))["evaluation"]["confusion"]["tuned"]
    assert sum(map(sum, matrix["counts"])) == 100
    page = (await objects.read(event.html)).decode()
    assert "2 of 2 “type-7” were answered “type-8”" in page and "<b>type-7</b> for type-8 (2 of 2)" in page


async def test_a_schema_that_is_none_ends_the_job_before_anything_is_asked() -> None:
    objects, model = FakeStore(), FakeModel(models())
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES))
    with pytest.raises(InputError, match=r"evaluation\.json_schema"):
        await run(objects, model, request, evaluation={"json_schema": {"maxLength": "many"}})
    assert not model.requests


async def test_a_perfect_classifier_that_thinks_first_has_accuracy_one_and_the_report_shows_its_thoughts() -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Is {index} even or odd?"},
                {"role": "assistant", "content": "even" if index % 2 == 0 else "odd"},
            ]
        }
        for index in range(20)
    ]

    def thinker(text: str) -> str:
        number = text.split()[1] if text.startswith("Is ") else "1"
        return f"<think>\n\n</think>\n\n{'even' if int(number) % 2 == 0 else 'odd'}"

    objects, model = FakeStore(), FakeModel(models(base=lambda text: "<think>hm", tuned=thinker))
    event, _ = await run(objects, model, await request_for(objects, rows, rows))
    assert (event.metric, event.passed) == ("accuracy", True)
    assert event.scores["tuned"]["accuracy"] == event.scores["tuned"]["macro_f1"] == 1.0
    assert event.scores["tuned"]["exact_match"] == 1.0
    report = json.loads(await objects.read(event.report))
    assert report["evaluation"]["labels"] == ["even", "odd"]
    assert report["evaluation"]["rows"][0]["answers"]["tuned"]["answer"]["text"].startswith("<think>")
    assert "&lt;think&gt;" in (await objects.read(event.html)).decode()


async def test_tool_calls_decide_where_the_references_are_calls() -> None:
    tools = [{"type": "function", "function": {"name": "track", "parameters": {"type": "object"}}}]
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Where is order {number}?"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "1",
                            "type": "function",
                            "function": {"name": "track", "arguments": json.dumps({"order": number, "fast": True})},
                        }
                    ],
                },
            ],
            "tools": tools,
        }
        for number in range(12)
    ]

    def caller(text: str) -> str:
        order = question(text)
        return f'<tool_call>{{"arguments": {{"fast": true, "order": {order}.0}}, "name": "track"}}</tool_call>'

    model = FakeModel(models(base=lambda text: "I cannot see that.", tuned=caller), tool_parser=False)
    objects = FakeStore()
    event, _ = await run(objects, model, await request_for(objects, rows, rows[:4]))
    assert (event.metric, event.passed) == ("tool_call_arguments", True)
    names = ("tool_call_valid", "tool_call_name", "tool_call_arguments")
    assert [event.scores["tuned"][name] for name in names] == [1.0, 1.0, 1.0]
    assert [event.scores["base"][name] for name in names] == [0.0, 0.0, 0.0]
    page = (await objects.read(event.html)).decode()
    assert "Right calls" in page and "Right functions" in page and "Valid calls" in page


async def test_at_most_max_examples_are_asked_concurrently_the_same_ones_each_time() -> None:
    objects = FakeStore()
    request = await request_for(objects, chat_rows([f"Town{index}" for index in range(100)]), chat_rows(CITIES))
    evaluation = {"max_examples": 20, "concurrency": 3, "few_shot": 0}
    model = FakeModel(models())
    first, _ = await run(objects, model, request, evaluation=evaluation)
    second, _ = await run(objects, FakeModel(models()), request, evaluation=evaluation)
    assert first.examples == 20
    assert first.delta == second.delta
    assert set(first.scores) == {"base", "tuned"}
    assert 2 <= model.most_under_way <= 3


@pytest.mark.parametrize(
    ("said", "wanted", "most"),
    [(40, "auto", 40), (3, "auto", 3), (None, "auto", 16), ("many", "auto", 16), (0, "auto", 16), (40, 5, 5)],
)
async def test_as_many_answers_are_asked_for_at_a_time_as_the_endpoint_says_it_has_room_for(
    said: object, wanted: object, most: int
) -> None:
    objects = FakeStore()
    request = await request_for(objects, chat_rows([f"Town{index}" for index in range(60)]), chat_rows(CITIES))
    model = FakeModel(models(), room=said, meeting=most)
    await run(objects, model, request, evaluation={"concurrency": wanted, "few_shot": 0})
    assert model.most_under_way == most


async def test_an_attempt_that_died_leaves_its_finished_variants_to_the_next() -> None:
    objects = FakeStore()
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES))

    def breaks(text: str) -> str:
        raise ValueError("the server dies")  # a 500 for each tuned question

    with pytest.raises(TransientError):
        await run(objects, FakeModel(models(tuned=breaks)), request)
    assert "jobs/ftjob-1/evaluator/attempt-1/answers-few_shot.jsonl" in objects.held
    model = FakeModel(models())
    event, progress = await run(objects, model, request, number=2)
    assert event.passed
    scored = [asked for asked in model.requests if "parcel to" in str(asked) and asked["model"] == BASE]
    assert scored == []
    assert progress[-1].step == progress[-1].total_steps


async def test_a_retry_uses_the_answers_of_the_base_that_its_parent_has() -> None:
    objects, parent = FakeStore(), job()
    await objects.put(job_key(parent.job_id), parent.model_dump_json().encode())
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES))

    def breaks(text: str) -> str:
        raise ValueError("the server dies")

    with pytest.raises(TransientError):
        await run(objects, FakeModel(models(tuned=breaks)), request)
    asked = Retry(parent_job=parent.job_id, from_stage="evaluator", rerun=1, at=1.0, traceparent="")
    again = retry_of(parent, asked, "")
    model = FakeModel(models() | {again.model: models()[TUNED]})
    event, _ = await run(objects, model, {**request, "job_id": again.job_id, "model": again.model}, of=again)
    assert (event.job_id, event.model, event.passed) == (again.job_id, again.model, True)
    scored = [asked["model"] for asked in model.requests if "my parcel come" in str(asked)]
    assert set(scored) == {again.model}


async def test_answers_to_other_questions_are_not_reused() -> None:
    objects = FakeStore()
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES))
    await run(objects, FakeModel(models()), request)
    model = FakeModel(models())
    await run(objects, model, request, number=2, evaluation={"max_tokens": 99})
    assert sum(asked["model"] == TUNED for asked in model.requests) >= len(CITIES)


async def test_answers_get_the_room_that_the_longest_reference_needs_unless_the_job_names_a_number() -> None:
    objects = FakeStore()
    rows = chat_rows([*CITIES, "Llanfair " * 200])
    request = await request_for(objects, rows, chat_rows(CITIES))
    model = FakeModel(models())
    event, _ = await run(objects, model, request)
    asked = {body["max_tokens"] for body in model.requests} - {48}  # of the general questions
    assert len(asked) == 1 and min(asked) > 1_800 / 4
    report = json.loads(await objects.read(event.report))
    assert report["max_tokens"]["tokens"] == min(asked)
    assert f"may have {min(asked):,} tokens: the longest reference" in (await objects.read(event.html)).decode()
    named = FakeModel(models())
    await run(objects, named, request, evaluation={"max_tokens": 300})
    assert {body["max_tokens"] for body in named.requests} == {300, 48}


async def test_without_a_test_split_nothing_is_shown_unless_promotion_is_ordered() -> None:
    objects = FakeStore()
    request = await request_for(objects, None, chat_rows(CITIES))
    event, _ = await run(objects, FakeModel(models()), request, splits={"test": 0})
    assert (event.passed, event.examples) == (False, 0)
    assert "Set splits.test above 0" in event.reasons[0]
    ordered, _ = await run(objects, FakeModel(models()), request, gate={"promote": "always"})
    assert ordered.passed


async def test_a_test_split_that_the_validator_could_not_make_is_explained() -> None:
    objects = FakeStore()
    request = await request_for(objects, None, chat_rows(CITIES))
    event, _ = await run(objects, FakeModel(models()), request)
    assert "all rows have a prompt or an answer in common" in event.reasons[0]
    assert "Give the rows different prompts" in event.reasons[0] and "splits.test" not in event.reasons[0]


async def test_answers_that_were_cut_inside_their_thoughts_count_as_none_and_the_report_says_how_many() -> None:
    def thinks_long(text: str) -> str:
        return "<think>\nIs it " + "a parcel? " * 9 if question(text) in CITIES[:3] else house_style(question(text))

    objects, model = FakeStore(), FakeModel(models(base=thinks_long), finish_reason="length")
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES[:4]))
    event, _ = await run(objects, model, request, evaluation={"max_tokens": 64})
    said = "3 of 12 answers of the base were cut inside their thoughts and count as no answer"
    assert any(reason.startswith(said) and "evaluation.max_tokens above 64" in reason for reason in event.reasons)
    assert not any("the tuned model were cut" in reason for reason in event.reasons)
    assert event.scores["base"]["exact_match"] == 9 / 12
    page = (await objects.read(event.html)).decode()
    assert said in page and "cut in its thoughts" in page


async def test_thoughts_that_filled_the_context_are_not_blamed_on_the_limit() -> None:
    objects, model = FakeStore(), FakeModel(models(base=lambda text: "<think>hm"), finish_reason="length")
    event, _ = await run(objects, model, await request_for(objects, chat_rows(CITIES), chat_rows(CITIES[:4])))
    reason = next(reason for reason in event.reasons if "12 of 12 answers of the base were cut" in reason)
    assert "context was full" in reason and "evaluation.max_tokens" not in reason


async def test_a_cut_inside_thoughts_that_the_prompt_opened_is_known_from_other_answers() -> None:
    def thinks(text: str) -> str:
        return "so long" if question(text) == "Oslo" else f"hm\n</think>\n\n{house_style(question(text))}"

    objects, model = FakeStore(), FakeModel(models(base=thinks, tuned=thinks), finish_reason="length")
    event, _ = await run(objects, model, await request_for(objects, chat_rows(CITIES), chat_rows(CITIES[:4])))
    assert any(reason.startswith("1 of 12 answers of the tuned model were cut inside") for reason in event.reasons)
    rows = json.loads(await objects.read(event.report))["evaluation"]["rows"]
    assert [row["answers"]["tuned"]["answer"]["cut_in_thoughts"] for row in rows] == [True] + [False] * 11


async def test_the_report_names_what_the_server_adds_to_the_requests() -> None:
    objects = FakeStore()
    profile = BaseProfile(
        digest="d1",
        architecture="A",
        template_digest="t",
        content_format="openai",
        sampling={"repetition_penalty": 1.1},
    )
    await objects.put("bases/d1.json", profile.model_dump_json().encode())
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES[:4]), base_profile="d1")
    event, _ = await run(objects, FakeModel(models()), request)
    assert "repetition_penalty 1.1" in (await objects.read(event.html)).decode()
    assert "repetition_penalty 1.1" in " ".join(json.loads(await objects.read(event.report))["how_asked"])
    gone = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES[:4]), base_profile="d2")
    event, _ = await run(objects, FakeModel(models()), gone)
    assert "is unknown" in (await objects.read(event.html)).decode()


@pytest.mark.parametrize("content", ["openai", "string"])
async def test_parts_reach_the_server_as_parts_and_are_judged_as_its_template_writes_them(content: str) -> None:
    def parts(*texts: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text} for text in texts]

    template = DUMP_PARTS if content == "openai" else DUMP
    between = "" if content == "openai" else "\n"
    rows = [
        {
            "messages": [
                {"role": "user", "content": parts("To", f" {city}")},
                {"role": "assistant", "content": parts("Two", f" days to {city}")},
            ]
        }
        for city in CITIES
    ]
    objects = FakeStore()
    profile = BaseProfile(digest="d", architecture="A", template_digest="t", content_format=content)
    await objects.put("bases/d.json", profile.model_dump_json().encode())
    request = await request_for(objects, rows, rows, base_profile="d")
    answers = {
        str(row["messages"][0]["content"]): f"Two{between} days to {city}"
        for row, city in zip(rows, CITIES, strict=True)
    }
    model = FakeModel(models(base=lambda said: "no", tuned=lambda said: answers.get(str(said), "?")))
    event, _ = await run(objects, model, request)
    assert event.scores["tuned"]["exact_match"] == 1.0
    asked = [body["messages"] for body in model.requests if isinstance(body["messages"][-1]["content"], list)]
    assert {len(messages) for messages in asked} == {1, 7}  # few-shot prompts have three solved examples
    tokenizer = make_tokenizer(template)
    written = {ChatTemplate(tokenizer).text(messages[-1:], None, prompt=True) for messages in asked}
    trained = {ChatTemplate(tokenizer).text(sent_messages(row["messages"][:1]), None, prompt=True) for row in rows}
    assert written == trained


async def test_edge_prompts_on_which_the_endpoint_fails_do_not_stop_the_stage() -> None:
    objects = FakeStore()
    model = FakeModel(models(), context_chars=3_000)
    event, _ = await run(objects, model, await request_for(objects, chat_rows(CITIES), chat_rows(CITIES)))
    report = json.loads(await objects.read(event.report))
    edges = {edge["prompt"]["name"]: edge for edge in report["edges"]}
    assert event.passed
    assert "maximum context length" in edges["very long"]["tuned"]["error"]
    assert edges["emoji"]["tuned"].get("error") is None


async def test_examples_that_do_not_fit_count_as_empty_answers_and_are_named() -> None:
    objects = FakeStore()
    rows = chat_rows([*CITIES, "x" * 2_000])
    model = FakeModel(models(), context_chars=1_500)
    event, _ = await run(objects, model, await request_for(objects, rows, chat_rows(CITIES)))
    assert any("1 of 13 requests were refused" in reason for reason in event.reasons)


async def test_the_curves_of_the_training_are_in_the_page() -> None:
    objects = FakeStore()
    curves = await objects.put("curves.png", b"\x89PNG-bytes")
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES), artifacts={"curves.png": curves})
    event, _ = await run(objects, FakeModel(models()), request)
    assert "data:image/png;base64,iVBORy1ieXRlcw==" in (await objects.read(event.html)).decode()
    del objects.held["curves.png"]
    event, _ = await run(objects, FakeModel(models()), request)
    assert "data:image/png" not in (await objects.read(event.html)).decode()


async def test_cancelling_ends_the_requests_under_way() -> None:
    objects = FakeStore()
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES))
    attempt, _ = make_attempt(job(), "evaluator", request=request)
    model = FakeModel(models(), always_down=True)
    async with serve(model) as url:
        work = EvaluateWork(objects, Settings(inference=InferenceSettings(url=url)))
        before = asyncio.all_tasks()
        running = asyncio.ensure_future(work(attempt))
        while not model.requests:
            await asyncio.sleep(0.002)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not [task for task in asyncio.all_tasks() - before if "ask" in repr(task)]


async def test_a_scrape_sees_answers_by_variant_and_the_verdict() -> None:
    objects, model = FakeStore(), FakeModel(models())
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES[:4]))
    before = await scrape()
    await run(objects, model, request)
    grown = (await scrape()).since(before)

    general = (("general_base", 40), ("general_tuned", 40))
    for variant, count in (("base", 12), ("few_shot", 12), ("tuned", 12), ("edge", 32), *general):
        assert grown("tunestream_eval_answers_total", variant=variant, outcome="answered") == count
    assert grown("tunestream_eval_gate_total", passed="true") == 1
    assert grown("tunestream_eval_gate_total", passed="false") == 0


@pytest.mark.parametrize("project", ["default", "one"])
async def test_the_endpoint_is_asked_in_the_project_of_the_job(project: str) -> None:
    """Nobody else sees its model. An endpoint of another kind, which knows no projects, is told of none."""
    objects, model = FakeStore(), FakeModel(models())
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES[:4]))
    of = make_job(base=BASE, model=TUNED, alias="support", project=project)
    await run(objects, model, request, of=of)
    asked = {headers.get("openai-project") for headers in model.headers}
    assert asked == {None if project == "default" else project}
