"""The retention policy: what nobody refers to goes when its time is over, and nothing else, whatever the ledger
holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api.domain.retention import (
    DAY,
    Decision,
    Heir,
    Limits,
    builds_on_parent,
    decide,
    ended_at,
    references,
    refers,
)
from services.api.domain.walk import JobListing
from shared.events import STAGE_NAMES, EventRecord, StageResult
from shared.stages.ledger import Entry, result_key

JOB, OTHER = "ftjob-aaaa", "ftjob-bbbb"
NOW = 1_000 * DAY
LIMITS = Limits(attempt_days=7.0, report_days=None)
REPORTS = Limits(attempt_days=7.0, report_days=30.0)


def result(
    stage: str, outcome: str = "completed", attempt: int = 1, at: float = NOW - 8 * DAY, data: Any = None
) -> Any:
    record = EventRecord(topic="t", type="t", id="e", data=data or {})
    about = {"job_id": JOB, "stage": stage, "attempt": attempt, "owner": "o", "outcome": outcome, "finished_at": at}
    return StageResult.model_validate(about | {"event": record})


def done(*, at: float = NOW - 8 * DAY, attempt: int = 2, **data: Any) -> dict[Any, StageResult]:
    """The results of a job that ended at `at`; each was decided by `attempt`."""
    return {stage: result(stage, attempt=attempt, at=at, data=data.get(stage)) for stage in STAGE_NAMES}


def listing(results: dict[Any, StageResult], *names: str) -> JobListing:
    keys = [result_key(JOB, stage) for stage in results] + [f"jobs/{JOB}/{name}" for name in names]
    return JobListing(JOB, [Entry(key, "e", 1, NOW) for key in sorted(keys)])


def chosen(decision: Decision) -> dict[str, set[str]]:
    prefix = f"jobs/{JOB}/"
    found = {kind: {entry.key.removeprefix(prefix) for entry in each} for kind, each in decision.chosen.items()}
    return {kind: keys for kind, keys in found.items() if keys}


def ask(results: dict[Any, StageResult], *names: str, **more: Any) -> dict[str, set[str]]:
    about: dict[str, Any] = {"heirs": (), "named": False, "now": NOW, "limits": LIMITS, **more}
    return chosen(decide(listing(results, *names), results, **about))


FOLDERS = ("trainer/attempt-1/checkpoints/step-1/x", "trainer/attempt-2/adapter/x", "validate/attempt-1/train.jsonl")


def test_attempts_that_decided_nothing_go_when_their_time_is_over() -> None:
    results = done()
    assert ask(results, *FOLDERS) == {"attempts": {FOLDERS[0], FOLDERS[2]}}
    assert ask(done(at=NOW - 6 * DAY), *FOLDERS) == {}
    assert ask(done(at=NOW - 7 * DAY), *FOLDERS) != {}
    assert ask(done(at=NOW), *FOLDERS, limits=Limits(0.0, None)) != {}


@pytest.mark.parametrize(
    ("results", "ended"),
    [
        ({"ingest": result("ingest")}, False),
        ({"ingest": result("ingest", "failed")}, True),
        ({"ingest": result("ingest"), "validate": result("validate", "cancelled")}, True),
        ({stage: result(stage) for stage in STAGE_NAMES[:-1]}, False),
        (done(), True),  # also when the model was not promoted
        ({}, False),
    ],
)
def test_a_job_under_way_keeps_all_attempts(results: dict[Any, StageResult], ended: bool) -> None:
    assert (ended_at(results) is not None) == ended
    assert bool(ask(results, "trainer/attempt-3/x")) == ended


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled"])
def test_what_resuming_needs_goes_at_once_when_the_training_is_completed(outcome: str) -> None:
    keys = ("trainer/attempt-1/resume/step-1/manifest.json", "trainer/attempt-2/resume/step-9/x")
    results = {"ingest": result("ingest"), "trainer": result("trainer", outcome, attempt=2, at=NOW)}
    assert ask(results, *keys) == ({"resume": set(keys)} if outcome == "completed" else {})
    # after a failure a retry may go on from it, for as long as attempts are kept
    results["trainer"] = result("trainer", outcome, attempt=2, at=NOW - 8 * DAY)
    assert set().union(*ask(results, *keys).values()) == set(keys)


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_training_that_failed_keeps_no_checkpoints_for_ever(outcome: str) -> None:
    keys = ("trainer/attempt-2/checkpoints/step-1/x", "trainer/attempt-2/resume/step-2/x", "trainer/attempt-2/log.txt")
    results = {"ingest": result("ingest"), "trainer": result("trainer", outcome, attempt=2)}
    assert ask(results, *keys) == {"attempts": set(keys[:2])}
    assert ask(results, *keys, heirs=[Heir(False, frozenset())]) == {}
    kept = frozenset({f"jobs/{JOB}/trainer/attempt-2/checkpoints/step-1/"})
    assert ask(results, *keys, heirs=[Heir(True, kept)]) == {"attempts": {keys[1]}}
    completed = results | {"trainer": result("trainer", attempt=2), "evaluator": result("evaluator", outcome)}
    assert ask(completed, *keys) == {"resume": {keys[1]}}


def test_a_failed_attempt_keeps_what_it_told() -> None:
    results = {"ingest": result("ingest"), "validate": result("validate", "failed", attempt=2)}
    assert ask(results, "validate/attempt-2/report.json", "validate/attempt-1/report.json") == {
        "attempts": {"validate/attempt-1/report.json"}
    }


@pytest.mark.parametrize(
    "data",
    [
        {"checkpoints": [{"step": 1, "prefix": f"jobs/{JOB}/trainer/attempt-1/checkpoints/step-1/"}]},
        {"checkpoints": [{"step": 1, "prefix": f"jobs/{JOB}/trainer/attempt-1/checkpoints/step-1"}]},
        {"artifacts": {"x": {"bucket": "tunestream", "key": f"jobs/{JOB}/trainer/attempt-1/checkpoints/step-1/x"}}},
        {"adapter": {"prefix": f"jobs/{JOB}/trainer/attempt-1/checkpoints/"}},
        {"of_a_later_version": [[f"s3://tunestream/jobs/{JOB}/trainer/attempt-1/checkpoints/step-1/x"]]},
    ],
)
def test_what_a_result_refers_to_stays_in_whatever_field_it_does(data: dict[str, Any]) -> None:
    """A later attempt goes on from an earlier one, and lists its checkpoints."""
    for stage in STAGE_NAMES:
        assert ask(done(**{stage: data}), *FOLDERS) == {"attempts": {FOLDERS[2]}}


def test_a_parent_keeps_what_its_retries_refer_to_and_all_while_one_is_under_way() -> None:
    results = {"ingest": result("ingest"), "trainer": result("trainer", "failed", attempt=3)}
    keys = ("trainer/attempt-1/checkpoints/step-1/x", "trainer/attempt-2/checkpoints/step-2/x")
    assert ask(results, *keys) == {"attempts": set(keys)}
    kept = frozenset({f"jobs/{JOB}/trainer/attempt-2/checkpoints/step-2/"})
    assert ask(results, *keys, heirs=[Heir(True, frozenset()), Heir(True, kept)]) == {"attempts": {keys[0]}}
    under_way = decide(
        listing(results, *keys), results, heirs=[Heir(False, frozenset())], named=False, now=NOW, limits=LIMITS
    )
    assert (chosen(under_way), under_way.again) == ({}, True)


def test_reports_stay_unless_a_setting_says_otherwise_and_never_of_what_an_alias_names() -> None:
    report = f"jobs/{JOB}/evaluator/attempt-2/report.json"
    keys = ("evaluator/attempt-2/report.json", "evaluator/attempt-2/answers-tuned.jsonl", "trainer/attempt-2/adapter/x")
    results = done(at=NOW - 31 * DAY, evaluator={"report": {"key": report}})
    assert ask(results, *keys) == {}
    assert ask(results, *keys, limits=REPORTS) == {"reports": set(keys[:2])}
    assert ask(results, *keys, limits=REPORTS, named=True) == {}
    assert ask(results, *keys, limits=REPORTS, heirs=[Heir(True, frozenset({report}))]) == {"reports": {keys[1]}}
    assert ask(results, *keys, limits=REPORTS, heirs=[Heir(False, frozenset())]) == {}
    assert ask(done(at=NOW - 29 * DAY), *keys, limits=REPORTS) == {}
    about: Any = {"heirs": (), "named": True, "now": NOW, "limits": REPORTS}
    assert decide(listing(results, *keys), results, **about).again, "an alias may give the model up"


def test_only_what_attempts_have_written_is_ever_chosen() -> None:
    names = (
        "job.json",
        "control/cancel-1.json",
        "trainer/request.json",
        "trainer/claim.json",
        "trainer/published.json",
    )
    names += ("trainer/attempt-1", "trainer/attempt-x/y", "later/attempt-1/x", "attempt-1/x", "trainer/x/attempt-1/y")
    assert ask(done(), *names, limits=Limits(0.0, 0.0)) == {}


def test_a_limit_that_was_reached_since_the_last_sweep_is_noticed() -> None:
    assert LIMITS.due(NOW - 7.5 * DAY, NOW - DAY, NOW)
    assert not LIMITS.due(NOW - 9 * DAY, NOW - DAY, NOW)
    assert not LIMITS.due(NOW - 6 * DAY, NOW - DAY, NOW)
    assert REPORTS.due(NOW - 30.5 * DAY, NOW - DAY, NOW)
    assert LIMITS.due(NOW - 900 * DAY, 0.0, NOW), "the first sweep"


def test_a_retry_that_went_on_where_its_parent_ended_builds_on_it() -> None:
    parents = f"jobs/{OTHER}/trainer/attempt-1/checkpoints/step-1/"
    own = {"validate": result("validate", attempt=0, data={"train": {"key": f"jobs/{OTHER}/validate/attempt-1/t"}})}
    assert not builds_on_parent(JOB, own), "what it adopted, the parent keeps by itself"
    trained = {"train": {"key": f"jobs/{OTHER}/validate/attempt-1/t"}}
    assert not builds_on_parent(JOB, own | {"trainer": result("trainer", data=trained)})
    trained |= {"checkpoints": [{"prefix": parents}]}  # type: ignore[dict-item]
    assert builds_on_parent(JOB, own | {"trainer": result("trainer", data=trained)})


# --- whatever the ledger holds --------------------------------------------------------------------------------------

names = st.builds(
    "{}/attempt-{}/{}".format,
    st.sampled_from([*STAGE_NAMES, "later"]),
    st.integers(0, 3),
    st.sampled_from(["manifest.json", "resume/step-1/x", "checkpoints/step-1/x", "adapter/w", "report.json", "a/b/c"]),
)
cuts = st.integers(0, 6)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[list[str], dict[Any, StageResult], list[Heir], bool, Limits]:
    keys = draw(st.lists(names, max_size=12, unique=True))

    def some_references() -> list[str]:
        """Keys, and folders in which keys lie."""
        found = []
        for name in draw(st.lists(st.sampled_from(keys), max_size=3)) if keys else []:
            parts = f"jobs/{JOB}/{name}".split("/")
            kept = parts[: max(len(parts) - draw(cuts), 4)]
            found.append("/".join(kept) + ("/" if len(kept) < len(parts) and draw(st.booleans()) else ""))
        return found

    results: dict[Any, StageResult] = {}
    for stage in STAGE_NAMES[: draw(st.integers(0, 5))]:
        last = draw(st.sampled_from(["completed", "completed", "failed", "cancelled"]))
        at = NOW - draw(st.floats(0, 60)) * DAY
        results[stage] = result(stage, last, draw(st.integers(0, 3)), at, {"x": [{"y": some_references()}]})
        if last != "completed":
            break
    heirs = [Heir(draw(st.booleans()), frozenset(some_references())) for _ in range(draw(st.integers(0, 2)))]
    limits = Limits(draw(st.floats(0, 60)), draw(st.none() | st.floats(0, 60)))
    return keys, results, heirs, draw(st.booleans()), limits


@settings(max_examples=300, deadline=None)
@given(jobs())
def test_nothing_that_anybody_refers_to_is_ever_chosen(
    job: tuple[list[str], dict[Any, StageResult], list[Heir], bool, Limits],
) -> None:
    keys, results, heirs, named, limits = job
    decision = decide(listing(results, *keys), results, heirs=heirs, named=named, now=NOW, limits=limits)
    ended = ended_at(results)
    theirs = frozenset(name for heir in heirs for name in heir.references)
    for kind, entries in decision.chosen.items():
        for entry in entries:
            stage, attempt = entry.key.split("/")[2:4]
            assert attempt.startswith("attempt-")
            assert not refers(theirs, entry.key)
            if kind == "reports":
                assert stage == "evaluator" and not named and limits.report_days is not None and ended is not None
                assert not refers(references(results, without="evaluator"), entry.key)
            else:
                assert not refers(references(results), entry.key)
            if kind == "attempts":
                assert ended is not None and all(heir.ended for heir in heirs)
                decided = results.get(stage)
                assert (
                    decided is None
                    or f"attempt-{decided.attempt}" != attempt
                    or (stage == "trainer" and decided.outcome != "completed" and entry.key.split("/")[4] != "log.txt")
                )
            if kind == "resume":
                assert stage == "trainer" and results["trainer"].outcome == "completed"
    # once it was carried out, the same question has no answer left
    gone = {entry.key for entries in decision.chosen.values() for entry in entries}
    rest = [key for key in keys if f"jobs/{JOB}/{key}" not in gone]
    again = decide(listing(results, *rest), results, heirs=heirs, named=named, now=NOW, limits=limits)
    assert again.empty
