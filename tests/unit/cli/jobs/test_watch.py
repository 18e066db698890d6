"""Following a job with an api in memory, and what the user sees of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from rich.console import Console

from cli.client import Client, Json, NotFound, Unreachable
from cli.jobs.figures import duration, metrics
from cli.jobs.follow import ACCEPT_SECONDS, OUTAGE_SECONDS, Snapshot, failure, follow
from cli.jobs.result import result_lines
from cli.jobs.view import LiveView, PlainView, stage_names
from cli.target import Target
from cli.terminal import CliError
from shared.events import STAGE_NAMES
from shared.settings import BusSettings, StoreSettings

ID = "ftjob-abcdefgh12345678"
TUNED = "ft:tiny:tunestream:support:abcdefgh"


def job(status: str = "running", **stages: Json) -> Json:
    return {
        "id": ID,
        "object": "job",
        "created_at": 100,
        "status": status,
        "model": "tiny",
        "fine_tuned_model": None,
        "alias": "support",
        "error": None,
        "stages": {name: stages.get(name, {"state": "waiting"}) for name in STAGE_NAMES[1:]},
        "evaluation": None,
        "deployment": None,
    }


def done(promoted: bool = True) -> Json:
    finished = {"state": "completed", "started_at": 100.0, "finished_at": 103.5}
    return job("succeeded", validate=finished, trainer=finished, evaluator=finished, inference=finished) | {
        "fine_tuned_model": TUNED,
        "evaluation": {
            "metric": "rouge_l",
            "scores": {"base": {"rouge_l": 0.0812}, "few_shot": {"rouge_l": 0.1}, "tuned": {"rouge_l": 0.631}},
            "delta": {"mean": 0.55, "low": 0.5, "high": 0.6, "confidence": 0.95},
            "passed": promoted,
            "reasons": ["rouge_l is better by at least 0.500"],
            "report": "http://api/jobs/x/files/report.json",
            "html": "http://api/jobs/x/report",
        },
        "deployment": {"alias": "support", "model": TUNED, "previous": None, "endpoint": "http://e"}
        if promoted
        else None,
    }


def message(number: int, text: str, **more: Any) -> Json:
    return {
        "id": f"e{number}",
        "created_at": 100,
        "level": "info",
        "type": "message",
        "message": text,
        "data": {},
    } | more


def step(number: int, at: int, loss: float) -> Json:
    data = {"step": at, "total_steps": 10, "train_loss": loss, "tokens_per_second": 1234.5}
    return message(number, f"Step {at}/10", type="metrics", data=data)


class FakeApi:
    """A fake api service. `jobs` are its answers, one after the other; while `down` is set it refuses connections."""

    def __init__(self, jobs: list[Json], events: list[Json]) -> None:
        self.jobs = jobs
        self.events = events
        self.down = 0
        self.unknown = 0
        self.requests: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        if self.down:
            self.down -= 1
            raise httpx.ConnectError("refused")
        if request.headers.get("authorization") != "Bearer sk-key":
            return httpx.Response(401, json={"error": {"message": "Incorrect API key provided"}})
        if self.unknown:
            self.unknown -= 1
            return httpx.Response(404, json={"error": {"message": f"No job {ID}"}})
        if request.url.path == f"/jobs/{ID}/events":
            assert request.url.params["order"] == "asc"
            ids = [event["id"] for event in self.events]
            after = request.url.params.get("after")
            if after is not None and after not in ids:
                return httpx.Response(404, json={"error": {"message": f"Job {ID} has no event {after}"}})
            start = ids.index(after) + 1 if after is not None else 0
            page = self.events[start : start + int(request.url.params["limit"])]
            return httpx.Response(200, json={"object": "list", "data": page})
        if request.url.path == f"/jobs/{ID}":
            return httpx.Response(200, json=self.jobs.pop(0) if len(self.jobs) > 1 else self.jobs[0])
        return httpx.Response(404, json={"error": {"message": f"No job {request.url.path.rsplit('/')[-1]}"}})


class Clock:
    """A clock that moves only when something sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def client_of(api: Callable[[httpx.Request], httpx.Response], key: str = "sk-key") -> Client:
    target = Target(
        "http://api", "http://inference", key, StoreSettings(secret_key=SecretStr("s")), BusSettings(), "base"
    )
    return Client(target, httpx.MockTransport(api))


def snapshots(api: FakeApi, *, expected: bool = False, name: str = ID) -> list[Snapshot]:
    clock = Clock()
    return list(follow(client_of(api), name, expected=expected, clock=clock, sleep=clock.sleep))


def text_of(renderable: Any) -> str:
    console = Console(width=160, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


# --- following ----------------------------------------------------------------------------------------------------


def test_every_event_is_seen_once_in_order_however_many_there_are() -> None:
    events = [message(number, f"m{number}") for number in range(250)]
    seen = [event["id"] for snapshot in snapshots(FakeApi([job(), job(), done()], events)) for event in snapshot.events]
    assert seen == [f"e{number}" for number in range(250)]


def test_watching_goes_on_after_a_restart_of_the_api() -> None:
    api = FakeApi([job(), done()], [message(1, "one")])
    clock = Clock()
    stream = follow(client_of(api), ID, clock=clock, sleep=clock.sleep)
    assert next(stream).trouble == ""
    api.down = 20
    rest = list(stream)
    assert "nothing answers at http://api" in rest[0].trouble
    assert rest[0].job is not None, "what was known stays on the screen"
    assert rest[-1].final


def test_watching_gives_up_on_an_api_that_stays_away() -> None:
    api = FakeApi([job()], [])
    clock = Clock()
    stream = follow(client_of(api), ID, clock=clock, sleep=clock.sleep)
    next(stream)
    api.down = 10**6
    with pytest.raises(Unreachable):
        list(stream)
    assert clock.now == pytest.approx(OUTAGE_SECONDS, abs=2)


def test_no_stack_is_an_error_at_once_with_the_remedy() -> None:
    api = FakeApi([job()], [])
    api.down = 1
    with pytest.raises(Unreachable) as caught:
        snapshots(api)
    assert "tunestream up" in caught.value.remedy


def test_a_job_just_submitted_may_be_unknown_for_a_while() -> None:
    api = FakeApi([done()], [])
    api.unknown = 5
    found = snapshots(api, expected=True)
    assert found[0].trouble == "waiting for the job to be taken"
    assert found[-1].final


def test_a_job_that_never_comes_ends_the_wait() -> None:
    api = FakeApi([done()], [])
    api.unknown = 10**6
    clock = Clock()
    with pytest.raises(NotFound):
        list(follow(client_of(api), ID, expected=True, clock=clock, sleep=clock.sleep))
    assert clock.now == pytest.approx(ACCEPT_SECONDS, abs=2)


def test_a_misspelt_job_is_unknown_at_once() -> None:
    with pytest.raises(NotFound, match="No job ftjob-nope"):
        snapshots(FakeApi([done()], []), name="ftjob-nope")


def test_a_wrong_key_is_told_apart() -> None:
    with pytest.raises(CliError, match="the key was refused: Incorrect API key") as caught:
        client_of(FakeApi([done()], []), key="sk-wrong").job(ID)
    assert "TUNESTREAM_INFERENCE__API_KEYS" in caught.value.remedy


def test_another_program_on_the_port_is_told_apart() -> None:
    client = client_of(lambda request: httpx.Response(200, text="<html>"))
    with pytest.raises(CliError, match="not a JSON object"):
        client.job(ID)


# --- lines --------------------------------------------------------------------------------------------------------


def test_plain_output_has_one_line_per_change() -> None:
    running = {"state": "running", "started_at": 100.0}
    completed = {"state": "completed", "started_at": 100.0, "finished_at": 108.25}
    lines = PlainView(lambda: 200.0)
    assert lines(Snapshot(None, [], "waiting for the job to be taken")) == [
        "api: waiting for the job to be taken",
        "ingest: running",
    ]
    taken = Snapshot(job("validating_files", validate=running), [message(1, "Created fine-tuning job")])
    assert lines(taken) == [
        "api: answers again",
        "  Created fine-tuning job",
        "ingest: completed",
        "validate: running",
    ]
    assert lines(Snapshot(copy.deepcopy(taken.job), [])) == []
    assert lines(Snapshot(job(validate=completed, trainer=running), [step(2, 1, 2.5)])) == [
        "trainer: step 1/10  train loss 2.5000  1,234 tokens/s",
        "validate: completed after 8.2 s",
        "trainer: running",
    ]


def test_a_log_has_a_line_of_the_training_every_few_seconds_and_one_for_each_validation() -> None:
    clock = Clock()
    lines = PlainView(clock)
    running = {"state": "running", "started_at": 0.0}
    lines(Snapshot(job(trainer=running), []))
    shown: list[str] = []
    for at in range(1, 41):
        clock.sleep(0.25)
        event = step(at, at, 2.0)
        if at == 7:
            event["data"]["valid_loss"] = 1.5
        shown += lines(Snapshot(job(trainer=running), [event]))
    shown += lines(Snapshot(job(trainer=running | {"state": "completed", "finished_at": 10.0}), []))
    told = [int(line.split("step ")[1].split("/")[0]) for line in shown if "step " in line]
    assert told == [1, 7, 27, 40], "the last one is told when the training is over"
    assert "valid loss 1.5000" in shown[1]


def test_a_log_says_when_the_training_ends_beside_its_newest_step() -> None:
    clock = Clock()
    lines = PlainView(clock)
    running = {"state": "running", "started_at": 0.0, "step": 4, "total_steps": 10, "eta_seconds": 75.0}
    assert lines(Snapshot(job(trainer=running), [step(1, 1, 2.0), step(2, 4, 1.5)]))[0].endswith("1,234 tokens/s")
    clock.sleep(5)
    assert lines(Snapshot(job(trainer=running), [])) == [
        "trainer: step 4/10  train loss 1.5000  1,234 tokens/s  1 min 15 s left"
    ]


def test_a_log_tells_what_lasts_long_while_no_step_ends() -> None:
    clock = Clock()
    lines = PlainView(clock)
    running = {"state": "running", "started_at": 0.0}
    memory = {"memory_bytes": 3 * 2**30, "peak_memory_bytes": 5 * 2**30}

    def after(seconds: float, data: Json, **stage: Any) -> list[str]:
        clock.sleep(seconds)
        return lines(Snapshot(job(trainer=running | {"data": data} | stage), []))

    after(0, {"phase": "tokenize"})
    counted = {"phase": "tokenize", "seconds": 10.0, "done": 4000, "total": 10000}
    assert after(6, {"phase": "tokenize", "progress": counted} | memory) == [
        "trainer: tokenize  4,000 of 10,000  10.0 s  3.0 GiB (peak 5.0)"
    ]
    assert after(1, {"phase": "tokenize", "progress": counted} | memory) == [], "nothing is new"
    assert after(6, {"phase": "load", "progress": counted} | memory) == [], "that was another phase"
    speed = {"tokens_per_second": 12345.6, "mfu": 0.412, "train_loss": 1.25} | memory
    epoch = {"phase": "epoch 1", "progress": {"phase": "epoch 1", "seconds": 70.0}} | speed
    assert after(6, epoch, step=3, total_steps=90, eta_seconds=1234.0) == [
        "trainer: step 3/90  train loss 1.2500  12,346 tokens/s  MFU 41.2%  3.0 GiB (peak 5.0)  20 min 34 s left"
    ]


def test_evaluation_counts_are_lines() -> None:
    lines = PlainView(lambda: 0.0)
    running = {"state": "running", "step": 3, "total_steps": 40, "message": "asking tuned"}
    first = lines(Snapshot(job(evaluator=running), []))
    assert first[-1] == "evaluator: running"
    assert lines(Snapshot(job(evaluator=running | {"step": 9}), [])) == ["evaluator: 9/40  asking tuned"]


def test_warnings_and_errors_are_marked() -> None:
    lines = PlainView(lambda: 0.0)
    shown = lines(Snapshot(job(), [message(1, "it overfits", level="warn"), message(2, "it broke", level="error")]))
    assert shown[:2] == ["  warn: it overfits", "  error: it broke"]


# --- the live view ------------------------------------------------------------------------------------------------


def test_the_live_view_shows_stages_losses_and_what_happened_last() -> None:
    live = LiveView(ID, lambda: 104.0)
    trainer = {"state": "running", "started_at": 101.0, "step": 4, "total_steps": 10, "eta_seconds": 9.5, "data": {}}
    validate = {"state": "completed", "started_at": 100.0, "finished_at": 101.0}
    events = [message(1, "Files validated"), step(2, 3, 2.25), message(3, "saved [bold]checkpoint[/]")]
    live.update(Snapshot(job(validate=validate, trainer=trainer), events))
    live.update(Snapshot(job(validate=validate, trainer=trainer), [step(4, 4, 1.75)]))
    shown = text_of(live.render())
    assert ID in shown
    for name in STAGE_NAMES:
        assert name in shown
    assert "step 4/10  train loss 1.7500  1,234 tokens/s  9.5 s left" in shown
    assert "3.0 s" in shown
    assert "saved [bold]checkpoint[/]" in shown


def test_the_live_view_before_the_job_is_known() -> None:
    live = LiveView(ID, lambda: 0.0)
    live.update(Snapshot(None, [], "waiting for the job to be taken"))
    assert "waiting for the job to be taken" in text_of(live.render())


# --- an api that is newer than this command -----------------------------------------------------------------------


def newer(state: str = "running") -> Json:
    """A job with a stage that this command does not know, another that it lacks, and states of later versions."""
    known = job("waiting_for_quota", validate={"state": "paused", "started_at": 100.0}, trainer={"percent": 3})
    stages = {"synthesis": {"state": state, "started_at": 100.0, "step": 2, "total_steps": 8}, **known["stages"]}
    del stages["inference"]
    return known | {"stages": stages, "priority": "high"}


def test_a_stage_that_is_not_known_is_shown_where_the_api_has_it() -> None:
    assert stage_names(None) == STAGE_NAMES
    assert stage_names(job()) == STAGE_NAMES
    assert stage_names(newer()) == ("ingest", "synthesis", "validate", "trainer", "evaluator", "inference")


def test_plain_output_takes_stages_and_states_that_it_does_not_know() -> None:
    lines = PlainView(lambda: 200.0)
    shown = lines(Snapshot(newer(), [message(1, "Paused by its owner", type="control", level="notice")]))
    assert shown == ["  Paused by its owner", "ingest: completed", "synthesis: running", "validate: paused"]
    assert lines(Snapshot(newer("handed_over"), [])) == ["synthesis: handed_over"]


def test_the_live_view_takes_stages_and_states_that_it_does_not_know() -> None:
    live = LiveView(ID, lambda: 104.0)
    live.update(Snapshot(newer(), [{"id": "e1", "type": "control", "data": None}]))
    shown = text_of(live.render())
    for word in ("waiting_for_quota", "synthesis", "paused", "inference", "control"):
        assert word in shown


def test_a_job_with_an_unknown_final_status_ends_the_watch_and_is_no_success() -> None:
    expired = job("expired") | {"finished_at": 123}
    found = snapshots(FakeApi([job("waiting_for_quota"), expired], []))
    assert [snapshot.final for snapshot in found] == [False, True]
    assert failure(expired).message == f"{ID} ended: expired"


def test_a_result_with_missing_fields_is_still_shown() -> None:
    lines = result_lines(done() | {"evaluation": {"scores": {"tuned": {"judge": 0.5}}, "passed": True}})
    assert lines == [f"promoted: support is {TUNED} now", "report: none", 'ask it: tunestream chat "support"']


# --- the end ------------------------------------------------------------------------------------------------------


def test_a_promoted_model_is_shown_with_scores_interval_and_how_to_ask_it() -> None:
    lines = result_lines(done())
    assert lines[0] == f"promoted: support is {TUNED} now"
    assert "rouge_l: 0.081  base" in lines
    assert "rouge_l: 0.631  tuned" in lines
    assert "tuned - base: +0.550, between +0.500 and +0.600 at 95% confidence" in lines
    assert "report: http://api/jobs/x/report" in lines
    assert lines[-1] == 'ask it: tunestream chat "support"'


def test_what_the_training_took_stands_beside_its_estimate() -> None:
    usage = {"device": "NVIDIA L4", "processes": 2, "tokens": 12_345, "seconds": 90.0, "estimated_seconds": 80.0}
    usage |= {"peak_memory_bytes": 3 * 2**30, "estimated_memory_bytes": 2 * 2**30, "money": 0.05}
    lines = result_lines(done() | {"training": {"usage": usage}})
    assert (
        "training took: 1 min 30 s (estimated 1 min 20 s), 3.0 GiB (estimated 2.0 GiB), 12,345 tokens, "
        "0.05 of money on 2 x NVIDIA L4"
    ) in lines
    assert not any("took" in line for line in result_lines(done() | {"training": {"usage": None}}))


def test_a_model_that_was_not_promoted_is_shown_with_the_reasons() -> None:
    lines = result_lines(done(promoted=False))
    assert lines[0].startswith(f"not promoted: {TUNED}")
    assert "- rouge_l is better by at least 0.500" in lines
    assert lines[-1] == f'ask it: tunestream chat "{TUNED}"'


def test_a_model_that_passed_but_was_not_promoted_is_shown_with_what_is_against_it() -> None:
    found = done(promoted=False)
    found["evaluation"]["passed"] = True
    found["stages"]["inference"]["message"] = "The alias belongs to another dataset."
    assert "- The alias belongs to another dataset." in result_lines(found)


def test_the_result_says_whether_the_training_was_compared_with_the_server() -> None:
    served = "12 turns compared with vLLM 0.32.0: 0 differences"
    assert f"as served: {served}" in result_lines(done() | {"validation": {"as_served": served}})
    assert not [line for line in result_lines(done() | {"validation": {}}) if line.startswith("as served")]


def test_a_failure_is_shown_with_code_field_and_message() -> None:
    error = {"code": "invalid_training_file", "message": "Line 3: no role", "param": "training_file"}
    assert failure(job("failed") | {"error": error}).message == "invalid_training_file (training_file): Line 3: no role"
    assert failure(job("cancelled")).message == f"{ID} was cancelled"


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.24, "8.2 s"), (59.9, "59.9 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_metrics_show_what_is_there() -> None:
    assert metrics({"valid_loss": 1.5, "step": 3}) == "step 3  valid loss 1.5000"
    assert metrics({"train_loss": None}) == ""
