"""The oracle sees what is lost, doubled or wrong: each test plants one, and the right rule must find it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.facts import Answer, Asked, Facts, Hit, JobFound, Record, Result, Sent, Version, bugs_of
from tests.chaos.oracle import RULES, judge

BASE, FIRST, SECOND = "tiny", "ft:tiny:org:bada:1", "ft:tiny:org:kilo:2"
TOPICS = {
    "ingest": "dataset.uploaded",
    "validate": "dataset.validated",
    "trainer": "training.completed",
    "evaluator": "eval.completed",
    "inference": "model.deployed",
}


def results(job_id: str) -> tuple[Result, ...]:
    return tuple(
        Result(stage, "completed", topic, f"{job_id}-{stage}", 1, passed=True if stage == "evaluator" else None)
        for stage, topic in TOPICS.items()
    )


def answer(asked: str, model: str, text: str = "", began: float = 500.0, status: int = 200, **more: object) -> Answer:
    whole = {"header": model, "named": model, "whole": True} if status == 200 else {}
    return Answer(asked, False, began, began + 1, status, text=text, **{**whole, **more})  # type: ignore[arg-type]


@pytest.fixture
def facts() -> Facts:
    """A good run: two jobs, of which the second moved the alias at 300; then it was rolled back at 400."""
    jobs = [
        JobFound("job-1", "a.jsonl", FIRST, "desk", None, results("job-1"), "succeeded"),
        JobFound("job-2", "b.jsonl", SECOND, "desk", None, results("job-2"), "succeeded"),
    ]
    return Facts(
        sent=[Sent("a.jsonl", "drop", "desk", "bada", True, 1.0), Sent("b.jsonl", "event", "desk", "kilo", True, 2.0)],
        asked=[
            Asked("rollback", "desk", 399.0, 401.0, 200, given=FIRST, expected=SECOND),
            Asked("pause", "job-2", 50.0, 51.0, 200, given="job-2"),
            Asked("resume", "job-2", 60.0, 61.0, 200, given="job-2"),
        ],
        answers=[
            answer("desk", FIRST, "bada", 250.0),
            answer("desk", SECOND, "kilo", 350.0),
            answer(SECOND, SECOND, "kilo"),
            answer(BASE, BASE, "hello"),
            answer(BASE, BASE, status=503, began=110.0, code="service_unavailable"),
        ],
        hits=[Hit("kill vllm", 100.0, 100.0)],
        base=BASE,
        jobs=jobs,
        aliases={
            "desk": [Version(FIRST, "job-1", 200.0), Version(SECOND, "job-2", 300.0), Version(FIRST, "job-1", 400.0)]
        },
        records=[Record(each.topic, job.id, each.ce_id) for job in jobs for each in job.results]
        + [Record("dataset.uploaded", "", "")],
        seen={f"jobs/{job.id}/{each.stage}/result.json": {"etag"} for job in jobs for each in job.results},
        exact=[
            answer(BASE, BASE),
            answer("desk", FIRST, "bada"),
            answer(FIRST, FIRST, "bada"),
            answer(SECOND, SECOND, "kilo"),
        ],
    )


def broken(facts: Facts) -> set[str]:
    """The rules that are broken."""
    return {verdict.rule for verdict in judge(facts) if verdict.violations}


def change(facts: Facts, number: int, **fields: object) -> None:
    """Change a job."""
    facts.jobs[number] = replace(facts.jobs[number], **fields)  # type: ignore[arg-type]


def test_a_good_run_breaks_no_rule(facts: Facts) -> None:
    assert broken(facts) == set()
    assert all(verdict.checked for verdict in judge(facts) if "retry" not in verdict.rule)


def test_a_lost_job(facts: Facts) -> None:
    facts.sent.append(Sent("c.jsonl", "drop", "desk", "muno", True, 3.0))
    assert broken(facts) == {"each dataset that was accepted is one job"}


def test_a_dataset_that_was_not_acknowledged_may_have_no_job_but_not_two(facts: Facts) -> None:
    facts.sent.append(Sent("c.jsonl", "drop", "desk", "muno", False, 3.0))
    assert broken(facts) == set()
    for name in ("job-3", "job-4"):
        facts.jobs.append(replace(facts.jobs[0], id=name, key="c.jsonl", model=f"ft:{name}"))
    assert "each dataset that was accepted is one job" in broken(facts)


def test_a_job_of_nobody(facts: Facts) -> None:
    change(facts, 0, key="z.jsonl")
    assert "each dataset that was accepted is one job" in broken(facts)


def test_a_job_without_an_end(facts: Facts) -> None:
    change(facts, 0, results=facts.jobs[0].results[:-1])
    assert "each job has one end, and all show the same" in broken(facts)


def test_a_job_with_two_ends(facts: Facts) -> None:
    failed = Result("trainer", "cancelled", "job.failed", "job-1-trainer", 1)
    change(facts, 0, results=(*facts.jobs[0].results[:2], failed, *facts.jobs[0].results[3:]))
    facts.records.append(Record("job.failed", "job-1", "job-1-trainer"))
    assert "each job has one end, and all show the same" in broken(facts)


def test_a_job_that_went_on_after_it_had_failed(facts: Facts) -> None:
    failed = Result("validate", "failed", "job.failed", "job-1-validate", 1, code="invalid")
    change(facts, 0, results=(facts.jobs[0].results[0], failed, facts.jobs[0].results[2]), shown="failed")
    assert "each job has one end, and all show the same" in broken(facts)


def test_an_api_that_shows_something_else(facts: Facts) -> None:
    change(facts, 1, shown="running")
    assert broken(facts) == {"each job has one end, and all show the same"}


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_job_that_ended_as_nobody_wanted(facts: Facts, outcome: str) -> None:
    end = Result("trainer", outcome, "job.failed", "job-2-trainer", 1, code="internal_error")
    change(facts, 1, results=(*facts.jobs[1].results[:2], end), shown=outcome)
    assert "no job fails, and only those end as cancelled that somebody cancelled" in broken(facts)


def test_a_job_that_was_cancelled_may_end_so(facts: Facts) -> None:
    end = Result("trainer", "cancelled", "job.failed", "job-3-trainer", 1)
    facts.jobs.append(JobFound("job-3", "c.jsonl", "ft:3", "desk", None, (*results("job-3")[:2], end), "cancelled"))
    facts.sent.append(Sent("c.jsonl", "drop", "desk", "muno", True, 3.0))
    facts.records += [Record(each.topic, "job-3", each.ce_id) for each in facts.jobs[-1].results]
    facts.asked.append(Asked("cancel", "job-3", 5.0, 6.0, None))
    assert broken(facts) == set()


@pytest.mark.parametrize(("resumed", "rested"), [(130.0, False), (112.0, True), (None, False)])
def test_a_paused_job_that_did_not_rest(facts: Facts, resumed: float | None, rested: bool) -> None:
    times = dict(zip(TOPICS, (90.0, 95.0, 105.0, 115.0, 125.0), strict=True))
    change(facts, 0, results=tuple(replace(each, at=times[each.stage]) for each in results("job-1")))
    facts.asked.append(Asked("pause", "job-1", 99.0, 100.0, 200, given="job-1"))
    if resumed:
        facts.asked.append(Asked("resume", "job-1", resumed, resumed + 1, 200, given="job-1"))
    assert broken(facts) == (set() if rested else {"a paused job rests until it is resumed"})


def test_a_result_that_was_replaced(facts: Facts) -> None:
    facts.seen["jobs/job-1/trainer/result.json"].add("another")
    assert broken(facts) == {"a result is decided once"}


def test_an_event_that_never_came(facts: Facts) -> None:
    del facts.records[3]
    assert broken(facts) == {"the event of each result is on its topic, under one id"}


def test_an_event_that_came_twice_is_right_and_one_with_two_ids_is_not(facts: Facts) -> None:
    facts.records.append(facts.records[2])
    assert broken(facts) == set()
    facts.records.append(replace(facts.records[2], ce_id="another"))
    assert broken(facts) == {"the event of each result is on its topic, under one id"}


def test_an_alias_on_a_version_that_did_not_pass(facts: Facts) -> None:
    bad = tuple(replace(each, passed=False) if each.stage == "evaluator" else each for each in facts.jobs[0].results)
    change(facts, 0, results=bad)
    assert broken(facts) == {"an alias is only on versions that passed their gate"}


def test_an_alias_on_a_model_of_no_job(facts: Facts) -> None:
    facts.aliases["other"] = [Version(FIRST, "job-9", 1.0)]
    facts.exact.append(answer("other", FIRST, "bada"))
    assert broken(facts) == {"an alias is only on versions that passed their gate"}


def test_an_alias_on_the_model_of_a_cancelled_job(facts: Facts) -> None:
    cancelled = replace(facts.jobs[1].results[-1], outcome="cancelled", topic="job.failed")
    change(facts, 1, results=(*facts.jobs[1].results[:-1], cancelled), shown="cancelled")
    assert "no alias is on the model of a cancelled job" in broken(facts)


@pytest.mark.parametrize("lost", [1, 2])
def test_a_deployment_or_a_rollback_that_the_alias_forgot(facts: Facts, lost: int) -> None:
    if lost == 2:
        facts.asked[0] = replace(facts.asked[0], given=SECOND, began=200.0, ended=201.0)
    else:
        del facts.aliases["desk"][1]
    assert "each deployment and each rollback that was accepted is in the history of its alias" in broken(facts)


def test_a_rollback_that_was_undone_by_its_own_repetition(facts: Facts) -> None:
    facts.asked[0] = replace(facts.asked[0], given=SECOND)
    assert broken(facts) == {"a rollback that is repeated because its answer was lost is done once"}


def test_a_retry_that_was_lost(facts: Facts) -> None:
    facts.asked.append(Asked("retry", "job-1", 5.0, 6.0, 200, given="job-7"))
    assert broken(facts) == {"each retry that was accepted is one job"}


def test_a_retry_that_nobody_asked_for(facts: Facts) -> None:
    change(facts, 1, parent="job-1")
    facts.sent.pop()
    assert "each retry that was accepted is one job" in broken(facts)


def test_a_model_that_does_not_answer(facts: Facts) -> None:
    facts.exact[3] = answer(SECOND, SECOND, status=503, code="service_unavailable")
    assert "every trained model answers under its exact id, and every alias answers" in broken(facts)
    del facts.exact[3]
    assert "every trained model answers under its exact id, and every alias answers" in broken(facts)


def test_an_alias_that_answers_with_its_previous_version_at_the_end(facts: Facts) -> None:
    facts.exact[1] = answer("desk", SECOND, "kilo", 500.0)
    assert "every trained model answers under its exact id, and every alias answers" in broken(facts)


@pytest.mark.parametrize(
    "wrong",
    [
        answer(SECOND, FIRST),
        answer(BASE, FIRST),
        answer("desk", BASE),
        answer("desk", SECOND, began=150.0),
        answer("desk", SECOND, began=500.0),
        answer(FIRST, FIRST, header=SECOND),
        answer(FIRST, FIRST, header=None),
        answer(SECOND, SECOND, "bada bada"),
        answer(SECOND, SECOND, "hello"),
        answer(BASE, BASE, "Bada"),
    ],
    ids=lambda wrong: f"{wrong.asked}-{wrong.header}-{wrong.named}-{wrong.text}-{wrong.began}",
)
def test_a_wrong_model(facts: Facts, wrong: Answer) -> None:
    facts.answers.append(wrong)
    assert broken(facts) == {"no request is answered by a wrong model"}


def test_either_version_may_answer_while_the_alias_moves(facts: Facts) -> None:
    facts.answers += [answer("desk", FIRST, "bada", 299.5), answer("desk", SECOND, "kilo", 299.5)]
    assert broken(facts) == set()


def test_an_answer_that_is_cut_off_without_a_word(facts: Facts) -> None:
    facts.answers.append(cut(""))
    assert broken(facts) == {"an answer with 200 is complete, or says that it broke"}


def cut(error: str) -> Answer:
    return Answer(BASE, True, 110.0, 111.0, 200, header=BASE, named=BASE, text="he", whole=False, error=error)


def test_a_stream_that_says_that_it_broke_is_right_while_something_is_away(facts: Facts) -> None:
    facts.answers.append(cut("APIError: the model server broke"))
    assert broken(facts) == set()
    facts.answers.append(replace(cut("APIError: the model server broke"), began=900.0, ended=901.0))
    assert broken(facts) == {"what is refused is refused as documented, and only while something is away"}


@pytest.mark.parametrize(
    "wrong",
    [
        answer(BASE, BASE, status=500, began=110.0, code="internal_error"),
        answer(FIRST, FIRST, status=404, began=110.0, code="model_not_found"),
        answer(BASE, BASE, status=503, began=110.0, code="whatever"),
        answer(BASE, BASE, status=503, began=110.0, code="service_unavailable", envelope=False),
        answer(BASE, BASE, status=503, began=900.0, code="service_unavailable"),
        Answer(BASE, False, 900.0, 901.0, None, error="APIConnectionError"),
    ],
    ids=lambda wrong: f"{wrong.status}-{wrong.code}-{wrong.began}",
)
def test_a_refusal_that_is_not_documented_or_at_a_wrong_time(facts: Facts, wrong: Answer) -> None:
    facts.answers.append(wrong)
    assert broken(facts) == {"what is refused is refused as documented, and only while something is away"}


@pytest.mark.parametrize("status", [404, 500])
def test_a_refusal_of_what_was_asked_by_hand_that_is_not_documented(facts: Facts, status: int) -> None:
    facts.asked.append(Asked("cancel", "job-1", 110.0, 111.0, status))
    assert broken(facts) == {"what is refused is refused as documented, and only while something is away"}


def test_a_fault_that_hit_nothing_excuses_nothing(facts: Facts) -> None:
    facts.hits = [replace(facts.hits[0], missed=True)]
    assert broken(facts) == {"what is refused is refused as documented, and only while something is away"}


@pytest.mark.parametrize(
    ("field", "rule"),
    [
        ("quarantine", "the quarantine is empty, and there is no dead letter"),
        ("letters", "the quarantine is empty, and there is no dead letter"),
        ("bugs", "no log tells of a bug"),
        ("not_ready", "every part is ready at the end, and no process is left after it"),
        ("left", "every part is ready at the end, and no process is left after it"),
    ],
)
def test_what_is_left(facts: Facts, field: str, rule: str) -> None:
    getattr(facts, field).append("something")
    assert broken(facts) == {rule}


def test_an_end_that_came_too_late(facts: Facts) -> None:
    facts.deadline_met = False
    assert broken(facts) == {"everything ends in time after the last fault"}


def test_errors_and_tracebacks_in_logs_are_bugs_unless_they_are_allowed() -> None:
    lines = [
        '{"level": "info", "message": "fine"}',
        '{"level": "warning", "message": "away"}',
        '{"level": "error", "message": "a request failed"}',
        '{"level": "error", "message": "the object store refuses"}',
        "Traceback (most recent call last):",
        "[1, 2]",
        "words",
    ]
    assert bugs_of(lines, ["store refuses"]) == [lines[2], lines[4]]


def test_every_rule_can_be_broken() -> None:
    """Each rule's words are in a test above."""
    source = Path(__file__).read_text()
    assert [says for says in RULES if says not in source] == []
