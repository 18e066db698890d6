"""What a client of /sweeps sees: errors that name the field and the remedy, lists, and one sweep for each request."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.sweeps import search
from tests.unit.api.conftest import error_of
from tests.unit.api.sweeps.world import World

RATE = {"learning_rate_multiplier": {"low": 0.5, "high": 2.0}}


WRONG: list[tuple[dict[str, Any], str | None, str]] = [
    ({"trials": 0}, "trials", "greater than or equal to 1"),
    ({"trials": 2, "parallel": 3}, "parallel", "lower it, or raise 'trials'"),
    ({"space": {}}, "space", "names no parameter; name at least one of n_epochs"),
    ({"space": {"rank": [8]}}, "space.rank", "Unknown parameter"),
    ({"space": {"r": []}}, "space.r", "list the values to try"),
    ({"space": {"r": [8, 8]}}, "space.r", "more than once"),
    ({"space": {"r": [8, 12]}}, "space.r", "A job cannot have 12 as 'lora.r'"),
    ({"space": {"n_epochs": {"low": 3, "high": 1}}}, "space.n_epochs.low", "'low' must be below 'high'"),
    ({"space": {"n_epochs": {"low": 1, "high": 99}}}, "space.n_epochs", "cannot have 99"),
    ({"space": {"n_epochs": {"low": 1.5, "high": 3}}}, "space.n_epochs", "is a whole number"),
    ({"space": {"dropout": {"low": 0, "high": 0.1, "log": True}}}, "space.dropout.low", "leave out 'log'"),
    ({"space": {"n_epochs": [1, 2]}, "trials": 3}, "trials", "2 different draws"),
    ({"space": RATE | {"learning_rate": [0.001]}}, "space.learning_rate", "search one of them"),
    (
        {"space": RATE, "spec": {"hyperparameters": {"learning_rate_multiplier": 2}}},
        "space.learning_rate_multiplier",
        "leave out one of",
    ),
    ({"spec": {"splits": {"validation": 0}}}, "spec.splits.validation", "give 'validation_file'"),
    ({"spec": {"rerun": 1}}, "spec.rerun", "Leave it out"),
    ({"spec": {"metadata": {"trial": "x"}}}, "spec.metadata.trial", "give it another name"),
    ({"budget": {}}, "budget", "limits nothing"),
    ({"budget": {"tokens": 0}}, "budget.tokens", "greater than or equal to 1"),
    ({"training_file": "file-nobody"}, "training_file", "upload it"),
    ({"spec": {"model": "ft:nobody"}}, None, "model"),
]
"""A body, the field that the error names, and some of its words."""


async def test_what_cannot_be_searched_is_refused_with_the_field_and_the_remedy(world: World) -> None:
    file = await world.file()
    for body, param, says in WRONG:
        answer = await world.api.client.post("/sweeps", json={"training_file": file} | body)
        assert answer.status_code in (400, 404), body
        error = error_of(answer)
        assert says in error["message"], body
        assert param is None or error["param"] == param
    assert not [key for key in world.objects.held if key.startswith("sweeps/")]


async def test_the_usual_space_is_searched_but_for_what_the_user_sets(world: World) -> None:
    sweep = await world.sweep(spec={"hyperparameters": {"n_epochs": 2}, "lora": {"dropout": 0.1}})
    space = (await world.view(sweep))["space"]
    assert space.keys() == {"batch_size", "learning_rate_multiplier", "r"}
    assert (await world.view(sweep))["trials"] == 8


async def test_a_request_that_is_sent_again_with_its_idempotency_key_is_one_sweep(world: World) -> None:
    client, file = world.api.client, await world.file()
    headers = {"idempotency-key": "a-key"}
    first = await client.post("/sweeps", json={"training_file": file}, headers=headers)
    again = await client.post("/sweeps", json={"training_file": file}, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    other = await client.post("/sweeps", json={"training_file": file, "trials": 3}, headers=headers)
    assert error_of(other)["code"] == "idempotency_key_reused"
    assert len((await world.api.get("/sweeps"))["data"]) == 1


async def test_a_second_try_of_the_official_client_is_one_sweep_and_a_new_request_another(world: World) -> None:
    client, body = world.api.client, {"training_file": await world.file()}
    first = (await client.post("/sweeps", json=body)).json()["id"]
    retried = (await client.post("/sweeps", json=body, headers={"x-stainless-retry-count": "1"})).json()["id"]
    assert retried == first
    assert (await client.post("/sweeps", json=body)).json()["id"] != first
    assert len((await world.api.get("/sweeps"))["data"]) == 2


async def test_lists_are_newest_first_and_go_on_behind_an_id(world: World) -> None:
    made = []
    for number in range(3):
        world.api.clock.now += 1
        made.append(await world.sweep(trials=number + 1))
    page = await world.api.get("/sweeps", limit=2)
    assert [each["id"] for each in page["data"]] == made[:0:-1] and page["has_more"]
    rest = await world.api.get("/sweeps", after=page["last_id"])
    assert [each["id"] for each in rest["data"]] == made[:1] and not rest["has_more"]
    missing = await world.api.client.get("/sweeps", params={"after": "sweep-nobody"})
    assert missing.status_code == 404


@pytest.mark.parametrize("sweep_id", ["sweep-nobody", "sweep-" + "a" * 24])
async def test_a_sweep_that_does_not_exist_is_404(world: World, sweep_id: str) -> None:
    for path in ("", "/report"):
        answer = await world.api.client.get(f"/sweeps/{sweep_id}{path}")
        assert answer.status_code == 404
    assert (await world.api.client.post(f"/sweeps/{sweep_id}/cancel")).status_code == 404


async def test_what_has_ended_cannot_be_cancelled(world: World) -> None:
    sweep = await world.sweep(space=RATE, trials=1)
    await world.until_over(sweep)
    answer = await world.api.client.post(f"/sweeps/{sweep}/cancel")
    assert answer.status_code == 400 and error_of(answer)["code"] == "sweep_finished"


async def test_a_service_without_optuna_says_so_when_it_is_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "is_installed", lambda: False)
    answer = await world.api.client.post("/sweeps", json={"training_file": await world.file()})
    assert error_of(answer)["code"] == "not_installed" and "`search`" in error_of(answer)["message"]
