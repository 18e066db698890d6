"""A sweep from its request to the model that is promoted, whatever happens to the process that works on it."""

from __future__ import annotations

import json
from typing import Any

from shared.events import Job, KeyLimits
from shared.stages.ledger import ASKED
from tests.support.data.keys import add_key, secret
from tests.unit.api.conftest import URL
from tests.unit.api.sweeps.world import SECONDS, TOKENS, Killed, KillingStore, World

FEW: dict[str, Any] = {"space": {"learning_rate_multiplier": {"low": 0.2, "high": 5.0, "log": True}, "r": [8, 16]}}


def numbers(jobs: list[Job]) -> list[str]:
    return [job.spec.metadata["trial"] for job in jobs]


async def test_the_best_trial_is_evaluated_as_the_user_wants_and_promoted(world: World) -> None:
    evaluation = {"max_examples": 16}
    sweep = await world.sweep(**FEW, trials=4, pruning="off", spec={"alias": "support", "evaluation": evaluation})
    view = await world.until_over(sweep)
    assert view["status"] == "succeeded" and view["promoted"]
    assert view["counts"]["succeeded"] == 4 and len(view["data"]) == 4
    losses = [trial["valid_loss"] for trial in view["data"]]
    assert view["best"]["valid_loss"] == min(losses) and len(set(losses)) == 4
    job = await world.api.get(f"/jobs/{view['evaluated_by']}")
    assert job["origin"]["parent_job"] == view["best"]["job_id"] and job["origin"]["from_stage"] == "evaluator"
    assert job["deployment"]["alias"] == "support"
    assert view["fine_tuned_model"] == job["fine_tuned_model"]
    evaluated = next(each for each in await world.jobs() if each.job_id == job["id"])
    assert not evaluated.is_trial and evaluated.spec.evaluation.max_examples == 16
    assert all(trial["fine_tuned_model"] for trial in view["data"])


async def test_trials_are_ordinary_jobs_that_the_openai_client_lists(world: World) -> None:
    sweep = await world.sweep(**FEW, trials=2, spec={"metadata": {"team": "help"}, "seed": 7})
    await world.until_over(sweep)
    listed = await world.api.client.get(f"/v1/fine_tuning/jobs?metadata[sweep]={sweep}")
    found = {job["id"]: job["metadata"] for job in listed.json()["data"]}
    trials = await world.trials()
    assert {job.job_id for job in trials} < found.keys()
    assert sorted(numbers(trials)) == ["0", "1"]
    assert all(metadata["team"] == "help" for metadata in found.values())
    assert {job.spec.seed for job in trials} == {7}
    assert all(job.origin.sweep == sweep for job in trials)


async def test_a_process_that_dies_after_each_of_its_writes_asks_for_no_trial_twice(world: World) -> None:
    body = {**FEW, "trials": 4, "parallel": 2, "pruning": "off"}
    whole = await world.until_over(await world.sweep(**body))
    before = {job.job_id for job in await world.jobs()}

    sweep = await world.sweep(**body)
    store = world.objects
    assert isinstance(store, KillingStore)
    deaths = 0
    for _ in range(100):
        store.armed = True
        try:
            await world.tick()
        except Killed:
            deaths += 1
            world.start()
        store.armed = False
        # the services work only when the process has nothing to write, so that it meets the same states as the first
        if not deaths or store.writes == deaths:
            await world.work()
        view = await world.view(sweep)
        if view["finished_at"] is not None:
            break
    # each trial is two writes, and the end three
    assert deaths == 4 * 2 + 3
    assert view["status"] == "succeeded"
    assert [trial["parameters"] for trial in view["data"]] != []
    jobs = [job for job in await world.jobs() if job.job_id not in before]
    assert sorted(numbers([job for job in jobs if job.is_trial])) == ["0", "1", "2", "3"]
    assert len(jobs) == 4 + 1
    assert view["best"]["valid_loss"] <= max(trial["valid_loss"] for trial in whole["data"])


async def test_after_a_restart_with_an_empty_database_the_sweep_goes_on(world: World) -> None:
    sweep = await world.sweep(**FEW, trials=3)
    await world.tick()
    await world.work()
    await world.tick()
    await world.api.delete_database()
    await world.api.projection.reconcile()
    world.start()
    view = await world.until_over(sweep)
    assert view["status"] == "succeeded" and len(await world.trials()) == 3


async def test_as_many_train_at_a_time_as_the_user_allows(world: World) -> None:
    sweep = await world.sweep(**FEW, trials=3, parallel=2, pruning="off")
    at_a_time = set()
    for _ in range(60):
        await world.tick()
        at_a_time.add(len([key for key in world.objects.held if key.startswith(ASKED)]) - len(world.steps))
        await world.work(whole=False)
        view = await world.view(sweep)
        assert view["counts"]["running"] + view["counts"]["queued"] <= 2
        if view["finished_at"]:
            break
    assert view["counts"]["succeeded"] == 3 and 2 in at_a_time


async def test_a_trial_above_the_median_is_pruned_and_says_why(world: World) -> None:
    bad: list[str] = []

    def losses(job: Job) -> float:
        if job.spec.metadata["trial"] == "2":
            bad.append(job.job_id)
            return 9.0
        return 1.0

    world.losses = losses
    sweep = await world.sweep(**FEW, trials=4)
    for _ in range(100):
        await world.tick()
        await world.work(whole=False)
        view = await world.view(sweep)
        if view["finished_at"]:
            break
    assert [trial["status"] for trial in view["data"]] == ["succeeded", "succeeded", "pruned", "succeeded"]
    pruned = view["data"][2]
    assert "above the median of 2 trials" in pruned["pruned"] and pruned["fine_tuned_model"] is None
    assert 0.2 <= pruned["curve"][-1][0] < 1.0
    assert 0 < pruned["seconds"] < SECONDS
    assert (await world.api.get(f"/jobs/{bad[0]}"))["status"] == "cancelled"
    assert view["status"] == "succeeded"


async def test_without_pruning_every_trial_is_trained_to_its_end(world: World) -> None:
    world.losses = lambda job: 9.0 if job.spec.metadata["trial"] == "2" else 1.0
    sweep = await world.sweep(**FEW, trials=3, pruning="off")
    for _ in range(60):
        await world.tick()
        await world.work(whole=False)
        if (view := await world.view(sweep))["finished_at"]:
            break
    assert view["counts"]["succeeded"] == 3


async def test_a_trial_that_fails_is_a_row_with_its_error_and_the_sweep_goes_on(world: World) -> None:
    world.fails = lambda job: "out_of_memory" if job.spec.metadata["trial"] == "1" else None
    view = await world.until_over(await world.sweep(**FEW, trials=3))
    assert [trial["status"] for trial in view["data"]] == ["succeeded", "failed", "succeeded"]
    assert view["data"][1]["error"] == {"code": "out_of_memory", "message": "Lower batch_size."}
    assert view["status"] == "succeeded"


async def test_if_all_trials_fail_the_sweep_fails_with_the_first_reason_and_does_not_try_them_all(world: World) -> None:
    world.fails = lambda job: "out_of_memory"
    view = await world.until_over(await world.sweep(**FEW, trials=8))
    assert view["status"] == "failed" and view["error"]["code"] == "out_of_memory"
    assert "Trial 0 failed: Lower batch_size." in view["error"]["message"]
    assert len(view["data"]) == 3 and view["evaluated_by"] is None


async def test_a_model_that_does_not_pass_the_gate_is_not_promoted_and_can_be_called(world: World) -> None:
    world.passes = False
    view = await world.until_over(await world.sweep(**FEW, trials=2))
    assert view["status"] == "succeeded" and not view["promoted"] and view["fine_tuned_model"]


async def test_the_trials_spend_no_more_than_the_budget(world: World) -> None:
    view = await world.until_over(await world.sweep(**FEW, trials=8, budget={"tokens": 3 * TOKENS, "seconds": 500}))
    assert len(view["data"]) == 3 and view["spent"] == {
        "seconds": 3 * SECONDS,
        "gpu_hours": round(3 * SECONDS / 3600, 4),
        "tokens": 3 * TOKENS,
        "money": None,
    }
    shares = [job.spec.budget for job in await world.trials()]
    assert sorted(share.tokens or 0 for share in shares if share) == [TOKENS, 2 * TOKENS, 3 * TOKENS]
    assert view["status"] == "succeeded" and view["promoted"]


async def test_trials_that_train_beside_each_other_share_what_is_left(world: World) -> None:
    sweep = await world.sweep(**FEW, trials=9, parallel=2, budget={"tokens": 2 * TOKENS + 100})
    await world.tick()
    await world.work(whole=False)
    shares = [job.spec.budget for job in await world.trials()]
    assert [share.tokens for share in shares if share] == [TOKENS + 50, TOKENS + 50]
    view = await world.until_over(sweep)
    assert view["spent"]["tokens"] == 2 * TOKENS
    # what is left is too little for any other, so they are not all tried
    assert view["counts"]["failed"] in (3, 4) and view["promoted"]


async def test_a_sweep_waits_while_the_project_has_as_many_jobs_as_its_key_allows(world: World) -> None:
    key = await add_key(world.objects, "b", rights=("train",), limits=KeyLimits(max_open_jobs=1))
    world.api.client.headers["authorization"] = f"Bearer {secret('b')}"
    assert key
    sweep = await world.sweep(**FEW, trials=2)
    await world.tick()
    await world.work()
    other = await world.api.client.post(
        "/v1/fine_tuning/jobs", json={"model": "Qwen/Qwen2.5-0.5B-Instruct", "training_file": await world.file()}
    )
    for _ in range(3):
        await world.tick()
    assert len((await world.view(sweep))["data"]) == 1 and not (await world.view(sweep))["evaluated_by"]
    await world.api.client.post(f"/jobs/{other.json()['id']}/cancel")
    view = await world.until_over(sweep)
    assert view["status"] == "succeeded" and len(view["data"]) == 2
    too_many = await world.api.client.post("/sweeps", json={"training_file": await world.file(), "parallel": 2})
    assert too_many.json()["error"]["param"] == "parallel"


async def test_cancelling_ends_what_runs_and_keeps_what_is_trained(world: World) -> None:
    sweep = await world.sweep(**FEW, trials=4, parallel=1)
    await world.tick()
    await world.work()
    await world.tick()
    await world.work(whole=False)
    answer = await world.api.client.post(f"/sweeps/{sweep}/cancel")
    assert answer.status_code == 200 and answer.json()["status"] == "cancelling"
    view = await world.until_over(sweep)
    assert [trial["status"] for trial in view["data"]] == ["succeeded", "cancelled"]
    assert view["status"] == "cancelled" and view["evaluated_by"] is None
    assert view["data"][0]["fine_tuned_model"]
    again = await world.api.client.post(f"/sweeps/{sweep}/cancel")
    assert again.status_code == 200 and again.json()["status"] == "cancelled"


async def test_what_ended_is_told_by_its_result_alone(world: World) -> None:
    sweep = await world.sweep(**FEW, trials=2)
    view = await world.until_over(sweep)
    await world.api.delete_database()
    world.objects.calls.clear()
    told = await world.view(sweep)
    assert told | {"as_of": 0} == view | {"as_of": 0}
    assert not [key for _, key in world.objects.calls if key.startswith("jobs/")]


async def test_the_best_model_that_its_owner_has_deleted_is_passed_over(world: World) -> None:
    sweep = await world.sweep(**FEW, trials=2)
    await world.tick()
    await world.work()
    await world.tick()
    await world.work()
    best = min((await world.view(sweep))["data"], key=lambda trial: trial["valid_loss"])
    world.objects.add(f"deleted/models/{best['job_id']}.json", json.dumps({}).encode())
    view = await world.until_over(sweep)
    assert view["best"]["job_id"] != best["job_id"] and view["status"] == "succeeded"


async def test_without_any_validation_loss_nothing_is_the_best(world: World) -> None:
    world.losses = lambda job: None
    view = await world.until_over(await world.sweep(**FEW, trials=1))
    assert view["status"] == "failed" and view["error"]["code"] == "no_validation_loss"


async def test_the_report_is_a_page_of_table_and_plots(world: World) -> None:
    world.fails = lambda job: "out_of_memory" if job.spec.metadata["trial"] == "1" else None
    sweep = await world.sweep(**FEW, trials=3)
    view = await world.until_over(sweep)
    assert view["report"] == f"{URL}/sweeps/{sweep}/report"
    page = await world.api.client.get(f"/sweeps/{sweep}/report")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "sandbox" in page.headers["content-security-policy"]
    for shown in (
        "The best trial is promoted",
        "Lower batch_size.",
        "learning_rate_multiplier",
        view["fine_tuned_model"],
    ):
        assert shown in page.text
    assert page.text.count("<polyline") == 2 and page.text.count("<svg") == 1 + 2
