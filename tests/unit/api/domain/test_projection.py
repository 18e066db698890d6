"""A job ends in the same state, in whatever order and however often facts about it arrive."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api.domain.messages import messages
from services.api.domain.projection import Fact, Manifest, Occurred, project
from services.api.domain.state import JobState
from services.api.resources.jobs.domain import job_view
from shared.events import EventRecord, JobFailed
from tests.support.data.job_history import T0, TRACE, DeliveredEvent, JobHistory

HISTORY = JobHistory()
FAILED = HISTORY.failed()


def occurred(told: DeliveredEvent) -> Occurred:
    return Occurred(told.event, told.ce_id, told.at)


def committed(history: JobHistory) -> list[Fact]:
    return [
        Occurred(
            event, EventRecord.of(event, f"ftevent-{stage}").id, history.created_at + after, committed=True, attempt=1
        )
        for stage, (event, after) in history.results.items()
    ]


def facts(history: JobHistory) -> list[Fact]:
    return [Manifest(history.job), *map(occurred, history.events)]


def after(given_facts: Iterable[Fact]) -> JobState:
    return functools.reduce(project, given_facts, JobState(job_id=HISTORY.job_id))


def view(state: JobState) -> dict[str, Any]:
    return job_view(state, lambda path: f"http://api/jobs/{state.job_id}/{path}", now=T0 + 60)


ALL = [*facts(HISTORY), *committed(HISTORY)]
ENDED_BADLY = [
    *facts(HISTORY)[:6],
    Occurred(FAILED, "ftevent-f", T0 + 9),
    Occurred(HISTORY.failed("validate"), "x", T0),
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([ALL, ENDED_BADLY]).flatmap(lambda all_: st.tuples(st.just(all_), st.permutations(all_ + all_))))
def test_any_order_and_any_repetition_end_in_the_same_state(drawn: tuple[list[Fact], list[Fact]]) -> None:
    told, shuffled = drawn
    assert after(shuffled) == after(told)


@settings(max_examples=100, deadline=None)
@given(st.permutations(ALL), st.integers(0, len(ALL)))
def test_a_job_that_has_succeeded_stays_so_whatever_comes_late(order: list[Fact], cut: int) -> None:
    ends = project(after(order[:cut]), Occurred(HISTORY.ended, "ftevent-end", T0 + 40))
    for fact in order[cut:]:
        ends = project(ends, fact)
        assert ends.status == "succeeded"


@given(st.permutations(ALL))
@settings(max_examples=50, deadline=None)
def test_the_state_survives_being_stored_at_any_point(order: list[Fact]) -> None:
    state = JobState(job_id=HISTORY.job_id)
    for fact in order:
        state = JobState.model_validate_json(project(state, fact).model_dump_json(exclude_defaults=True))
    assert state == after(ALL)


def test_the_status_follows_the_job_from_stage_to_stage() -> None:
    seen: list[str] = []
    state = JobState(job_id=HISTORY.job_id)
    for fact in facts(HISTORY):
        state = project(state, fact)
        if not seen or seen[-1] != state.status:
            seen.append(state.status)
    assert seen == ["validating_files", "queued", "running", "succeeded"]


def test_a_model_that_is_not_promoted_is_a_success_without_a_deployment() -> None:
    shown = view(after(facts(JobHistory(deployed=False))))
    assert (shown["status"], shown["deployment"], shown["stages"]["inference"]["state"]) == (
        "succeeded",
        None,
        "completed",
    )
    assert shown["evaluation"]["passed"] is False
    assert shown["fine_tuned_model"] == HISTORY.model


def test_progress_of_a_later_version_with_an_unknown_stage_or_state_breaks_nothing() -> None:
    unknown = [
        Occurred(HISTORY.progress("synthesis", "started", message="Making rows"), "ftevent-u1", T0 + 1),
        Occurred(HISTORY.progress("synthesis", "waiting", message="Waiting for the GPU"), "ftevent-u2", T0 + 2),
        Occurred(HISTORY.progress("trainer", "paused", message="Paused"), "ftevent-u3", T0 + 19),
    ]
    state = after([*ALL, *unknown])
    assert JobState.model_validate_json(state.model_dump_json(exclude_defaults=True)) == state
    shown, without = view(state), view(after(ALL))
    assert shown["status"] == without["status"] == "succeeded"
    assert {name: stage["state"] for name, stage in shown["stages"].items()} == {
        name: stage["state"] for name, stage in without["stages"].items()
    }
    assert shown["stages"]["trainer"]["message"] == "Paused"
    assert [entry.message for fact in unknown for entry in messages(fact)] == [
        "synthesis waits: Waiting for the GPU",
        "Paused",
    ]


def test_a_failure_in_an_unknown_stage_ends_the_job() -> None:
    state = after([*facts(HISTORY)[:2], Occurred(HISTORY.failed("synthesis"), "ftevent-f", T0 + 9)])
    assert JobState.model_validate_json(state.model_dump_json(exclude_defaults=True)) == state
    shown = view(state)
    assert (shown["status"], shown["error"]["code"]) == ("failed", "out_of_memory")


def test_a_failure_says_what_to_change_and_stops_the_later_stages() -> None:
    shown = view(after([*facts(HISTORY)[:6], Occurred(FAILED, "ftevent-f", T0 + 9)]))
    assert shown["status"] == "failed"
    assert shown["error"] == {"code": "out_of_memory", "message": "Lower batch_size.", "param": "batch_size"}
    assert {name: stage["state"] for name, stage in shown["stages"].items()} == {
        "ingest": "completed",
        "validate": "completed",
        "trainer": "failed",
        "evaluator": "cancelled",
        "inference": "cancelled",
    }
    assert shown["fine_tuned_model"] is None


def test_a_cancelled_job_has_no_error() -> None:
    shown = view(after([*facts(HISTORY)[:6], Occurred(HISTORY.failed(code="cancelled"), "ftevent-f", T0 + 9)]))
    assert (shown["status"], shown["error"], shown["stages"]["trainer"]["state"]) == ("cancelled", None, "cancelled")


def test_the_ledger_wins_over_the_topics() -> None:
    stranger = Occurred(HISTORY.failed(), "ftevent-stranger", T0 + 1)
    told = [Manifest(HISTORY.job), stranger, Occurred(HISTORY.trained, "ftevent-t", T0 + 20, committed=True, attempt=1)]
    assert after(told).stage("trainer").outcome == after(told[::-1]).stage("trainer").outcome
    assert after(told).shown("trainer") == "completed"


def test_progress_shows_the_last_value_of_every_figure() -> None:
    training_job = [fact for fact in facts(HISTORY) if isinstance(fact, Occurred) and fact.at < T0 + 19.4]
    stage = view(after([Manifest(HISTORY.job), *training_job]))["stages"]["trainer"]
    assert stage["state"] == "running"
    assert (stage["step"], stage["total_steps"], stage["eta_seconds"]) == (2, 3, 1.0)
    assert stage["data"] == {"train_loss": 1.0, "valid_loss": 1.1}
    assert stage["started_at"] == T0 + 18.5
    assert stage["finished_at"] is None


def test_a_stage_whose_own_event_is_late_is_completed_when_a_later_one_runs() -> None:
    shown = view(after([Manifest(HISTORY.job), Occurred(HISTORY.progress("evaluator", "started"), "e", T0 + 25)]))
    assert [stage["state"] for stage in shown["stages"].values()] == [
        "completed",
        "completed",
        "completed",
        "running",
        "waiting",
    ]


@pytest.mark.parametrize(("stage", "state"), [("synthesis", "started"), ("trainer", "paused"), ("synthesis", "paused")])
def test_a_stage_or_a_state_of_a_later_version_breaks_nothing(stage: str, state: str) -> None:
    later = HISTORY.progress("trainer", "running", step=7, message="of a later version").model_copy(
        update={"stage": stage, "state": state}
    )
    fact = Occurred(later, "ftevent-later", T0 + 30)
    projected = after([*facts(HISTORY)[:6], fact])
    kept = JobState.model_validate_json(projected.model_dump_json(exclude_defaults=True))
    assert kept == projected
    assert view(kept)["status"] == "running"
    assert kept.stage(stage).value("step") == 7
    assert view(after([*facts(HISTORY), fact]))["status"] == "succeeded"
    assert [message.message for message in messages(fact)] in ([], ["of a later version"])


def test_a_failure_in_a_stage_of_a_later_version_ends_the_job() -> None:
    failed = FAILED.model_copy(update={"stage": "synthesis"})
    projected = after([*facts(HISTORY)[:6], Occurred(failed, "ftevent-f", T0 + 9)])
    kept = JobState.model_validate_json(projected.model_dump_json(exclude_defaults=True))
    assert (kept, kept.status) == (projected, "failed")


def test_the_view_has_what_a_client_is_promised() -> None:
    shown = view(after(ALL))
    assert shown["object"] == "job"
    assert shown["created_at"] == int(T0)
    assert shown["finished_at"] == int(T0 + 40)
    assert (shown["model"], shown["fine_tuned_model"], shown["alias"]) == ("tiny-base", HISTORY.model, "support")
    assert shown["dataset"]["key"] == "support.jsonl"
    assert shown["metadata"] == {"team": "help"}
    assert shown["trace_id"] == TRACE
    assert shown["validation"]["examples"] == 100
    assert shown["validation"]["splits"]["test"] == {"examples": 20, "tokens": 200}
    assert (shown["training"]["steps"], shown["training"]["overfitting"]["verdict"]) == (3, "healthy")
    assert shown["evaluation"]["delta"] == {"mean": 0.5, "low": 0.4, "high": 0.6, "confidence": 0.95}
    assert shown["evaluation"]["html"] == f"http://api/jobs/{HISTORY.job_id}/report"
    assert shown["deployment"] == {
        "model": HISTORY.model,
        "alias": "support",
        "previous": None,
        "endpoint": "http://127.0.0.1:8000/v1",
        "traffic": 1.0,
    }
    assert shown["files"] == [
        "curves.png",
        "report.html",
        "report.json",
        "results.csv",
        "validation-report.html",
        "validation-report.json",
    ]


# --- the history --------------------------------------------------------------------------------------------------


def said(given_facts: Iterable[Fact]) -> list[str]:
    return [message.message for fact in given_facts for message in messages(fact)]


def test_the_history_reads_as_openais() -> None:
    assert said(facts(HISTORY)) == [
        f"Created fine-tuning job: {HISTORY.job_id}",
        "Validating training file",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        "Step 1/3: training loss=1.5",
        "Step 2/3: training loss=1, validation loss=1.1",
        "Step 3/3: training loss=0.5, validation loss=0.6",
        f"New fine-tuned model created: {HISTORY.model}",
        "Evaluating the fine-tuned model against its base",
        "Evaluation on 20 examples passed the gate: rouge_l base 0.100, few_shot 0.200, tuned 0.600; "
        "tuned - base +0.500 [+0.400, +0.600] at 95%",
        "Loading the fine-tuned model for serving",
        f"Model deployed: support now answers with {HISTORY.model}",
        "The job has successfully completed",
    ]


def test_skipped_steps_are_said() -> None:
    trained = HISTORY.trained.model_copy(update={"skipped_steps": 4, "diverged_at": 11})
    _, warning = messages(Occurred(trained, "ftevent-1", T0))
    assert warning.level == "warn"
    assert warning.message.startswith(
        "4 steps were skipped, because their loss or its gradient was not a finite number"
    )
    assert warning.message.endswith("training ended at step 11, and the best adapter so far was kept")


def test_a_step_is_a_metrics_event_with_its_figures() -> None:
    data = {"train_loss": 0.15, "valid_loss": 0.27, "full_valid_loss": 0.4, "tokens_per_second": 900}
    [message] = messages(Occurred(HISTORY.progress("trainer", step=300, total_steps=300, data=data), "ftevent-1", T0))
    assert message.type == "metrics"
    assert message.message == "Step 300/300: training loss=0.15, validation loss=0.27, full validation loss=0.4"
    assert message.data == {"step": 300, "total_steps": 300, **data}
    assert message.id == "ftevent-1"


def test_a_second_attempt_does_not_start_the_stage_again() -> None:
    attempts = [Occurred(HISTORY.progress("trainer", "started"), f"ftevent-{number}", T0 + number) for number in (1, 2)]
    first, second = ([message.id for message in messages(attempt)] for attempt in attempts)
    assert first == second


@pytest.mark.parametrize(
    ("event", "level", "data"),
    [
        (FAILED, "error", {"error_code": "out_of_memory", "error_param": "batch_size", "stage": "trainer"}),
        (HISTORY.failed(code="cancelled"), "info", {"stage": "trainer"}),
    ],
)
def test_an_end_without_a_model_has_the_right_level(event: JobFailed, level: str, data: dict[str, Any]) -> None:
    [message] = messages(Occurred(event, "ftevent-1", T0))
    assert (message.level, message.data) == (level, data)


def test_counters_of_other_stages_do_not_fill_the_history() -> None:
    counting = HISTORY.progress("evaluator", step=5, total_steps=60, message="base: 5 of 20 answers", data={"done": 5})
    phase = HISTORY.progress("trainer", message="loading the base model")
    assert said([Occurred(counting, "a", T0), Occurred(phase, "b", T0)]) == ["loading the base model"]
