"""client.fine_tuning.jobs.create as OpenAI's client sees it."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from shared.events import Job, JobControl
from shared.stages.ledger import asked_key, job_key
from tests.support.data.job_history import JobHistory
from tests.support.waiting import until
from tests.unit.api.resources.fine_tuning.conftest import BASE, Tuning

DPO = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.5, "n_epochs": 2}}}


async def manifest(tuning: Tuning, job_id: str) -> Job:
    await tuning.ingest()
    found = await tuning.api.objects.get(job_key(job_id))
    assert found is not None
    return Job.model_validate_json(found[0])


async def test_a_job_is_there_at_once_and_ingest_makes_it_with_what_was_asked_for(
    tuning: Tuning, client: AsyncOpenAI
) -> None:
    training, validation = await tuning.file("my data.jsonl"), await tuning.file()
    job = await client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training,
        validation_file=validation,
        suffix="support",
        seed=7,
        metadata={"team": "help"},
        hyperparameters={"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.5},
    )
    assert (job.object, job.status, job.model, job.seed) == ("fine_tuning.job", "validating_files", BASE, 7)
    assert (job.training_file, job.validation_file, job.result_files) == (training, validation, [])
    assert (job.fine_tuned_model, job.finished_at, job.trained_tokens, job.error) == (None, None, None, None)
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (3, "auto")
    assert job.method is not None and job.method.type == "supervised" and job.method.supervised is not None
    assert (job.metadata, job.organization_id) == ({"team": "help"}, "acme")
    assert job._request_id == (job.model_extra or {})["trace_id"], "the request id leads to the trace of the job"
    assert await client.fine_tuning.jobs.retrieve(job.id) == job

    made = await manifest(tuning, job.id)
    assert (made.base, made.spec.hyperparameters.n_epochs, made.spec.suffix) == (BASE, 3, "support")
    assert made.dataset.key == f"files/{training}/content"
    assert made.validation_file is not None and made.validation_file.key == f"files/{validation}/content"
    assert (made.origin.kind, made.origin.source, made.project) == ("api", "root", "default")
    assert (await client.fine_tuning.jobs.retrieve(job.id)).id == job.id
    await until(lambda: tuning.api.bus.events(JobControl), "ingest is told at once")


@pytest.mark.parametrize(("name", "alias"), [("my data.jsonl", "my-data"), ("upload", "upload"), ("…", "model")])
async def test_without_suffix_and_alias_the_alias_is_the_name_of_the_file(
    tuning: Tuning, client: AsyncOpenAI, name: str, alias: str
) -> None:
    job = await client.fine_tuning.jobs.create(model=BASE, training_file=await tuning.file(name))
    assert (job.model_extra or {})["alias"] == alias


async def test_our_extensions_are_settings_of_the_job(tuning: Tuning, client: AsyncOpenAI) -> None:
    more: dict[str, Any] = {
        "lora": {"r": 16},
        "evaluation": {"max_examples": 9},
        "splits": {"test": 0.2},
        "alias": "Help",
        "hyperparameters": {"max_length": 512},
        "deploy": False,
    }
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
    job = await client.fine_tuning.jobs.create(
        model=BASE,
        training_file=await tuning.file(),
        method=method,  # type: ignore[arg-type]
        extra_body=more,
    )
    spec = (await manifest(tuning, job.id)).spec
    assert (spec.lora.r, spec.evaluation.max_examples, spec.splits.test, spec.gate.promote) == (16, 9, 0.2, "never")
    assert (spec.hyperparameters.max_length, spec.hyperparameters.n_epochs, spec.method) == (512, 2, "supervised")
    assert (job.model_extra or {})["alias"] == "help"


async def test_dpo_with_its_beta(tuning: Tuning, client: AsyncOpenAI) -> None:
    job = await client.fine_tuning.jobs.create(
        model=BASE,
        training_file=await tuning.file(),
        method=DPO,  # type: ignore[arg-type]
    )
    assert job.method is not None and job.method.type == "dpo" and job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None and job.method.dpo.hyperparameters.beta == 0.5
    assert (await manifest(tuning, job.id)).spec.hyperparameters.beta == 0.5


async def test_null_is_as_absent(tuning: Tuning, client: AsyncOpenAI) -> None:
    names = (
        "validation_file",
        "suffix",
        "seed",
        "metadata",
        "hyperparameters",
        "method",
        "integrations",
        "lora",
        "gate",
    )
    nulls: dict[str, Any] = dict.fromkeys(names) | {"evaluation": {"few_shot": None}, "deploy": None}
    job = await client.fine_tuning.jobs.create(model=BASE, training_file=await tuning.file(), extra_body=nulls)
    assert (await manifest(tuning, job.id)).spec.evaluation.few_shot == 3
    assert job.metadata == {}


@pytest.mark.parametrize("tracked", [frozenset({"wandb"})])
async def test_an_integration_that_is_served_comes_with_the_job_and_is_shown(
    tuning: Tuning, client: AsyncOpenAI
) -> None:
    asked: Any = [{"type": "wandb", "wandb": {"project": "p", "name": "mine", "entity": "team", "tags": ["a", "b"]}}]
    created = await client.fine_tuning.jobs.create(model=BASE, training_file=await tuning.file(), integrations=asked)
    for job in (created, await client.fine_tuning.jobs.retrieve(created.id)):
        assert job.integrations is not None
        assert [each.model_dump() for each in job.integrations] == asked
    assert [event.level for event in (await client.fine_tuning.jobs.list_events(created.id)).data] == ["info"]
    [kept] = (await manifest(tuning, created.id)).spec.integrations
    assert kept.model_dump(mode="json") == asked[0]
    plain = await client.fine_tuning.jobs.create(model=BASE, training_file=await tuning.file("b.jsonl"))
    assert plain.integrations == []


async def test_an_integration_that_is_not_served_is_told_in_the_history(tuning: Tuning, client: AsyncOpenAI) -> None:
    integrations: Any = [{"type": "wandb", "wandb": {"project": "p", "tags": ["a"]}}]
    job = await client.fine_tuning.jobs.create(
        model="gpt-4.1-nano", training_file=await tuning.file(), integrations=integrations
    )
    events = list(reversed((await client.fine_tuning.jobs.list_events(job.id)).data))
    assert [event.level for event in events] == ["info", "warn", "warn"]
    assert events[0].message == f"Created fine-tuning job: {job.id}"
    assert "gpt-4.1-nano" in events[1].message and BASE in events[1].message
    assert "wandb" in events[2].message and "TUNESTREAM_TRACKING__WANDB" in events[2].message
    await tuning.ingest()
    await tuning.api.delete_database()
    await tuning.api.projection.discover()
    kept = await tuning.api.get(f"/v1/fine_tuning/jobs/{job.id}/events")
    assert [each["message"] for each in reversed(kept["data"])] == [event.message for event in events]


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt-4o-mini-2024-07-18", "gpt-3.5-turbo", "gpt-9", "GPT-4o"])
async def test_foreign_names_stand_for_a_base(tuning: Tuning, client: AsyncOpenAI, name: str) -> None:
    job = await client.fine_tuning.jobs.create(model=name, training_file=await tuning.file())
    assert job.model == BASE
    warnings = [event for event in (await client.fine_tuning.jobs.list_events(job.id)).data if event.level == "warn"]
    assert len(warnings) == (0 if name == "gpt-4o-mini-2024-07-18" else 1)


@pytest.mark.parametrize(
    "name",
    ["acme/other", "llama", "ft:gpt-4o-mini-2024-07-18:acme::abcdefgh", "ft:x", "ft:tiny:acme::aaaaaaaa:ckpt-step-1"],
)
async def test_a_model_that_nobody_has_is_404_at_once(tuning: Tuning, client: AsyncOpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.fine_tuning.jobs.create(model=name, training_file=await tuning.file())
    assert (caught.value.code, caught.value.param, tuning.asked()) == ("model_not_found", "model", [])


async def trained(tuning: Tuning, project: str = "default") -> JobHistory:
    """A job of the project that has trained a model with a checkpoint at step 3."""
    job = JobHistory(9)
    job.job = job.job.model_copy(update={"project": project})
    await job.write_documents(tuning.api.objects, until="validate")
    folder = f"jobs/{job.job_id}/trainer/attempt-1/checkpoints/step-3/"
    await tuning.api.objects.put(f"{folder}manifest.json", b'{"files": {}}')
    checkpoints = [{"step": 3, "prefix": folder}]
    event = job.trained.model_validate(
        job.trained.model_dump() | {"project": project, "base": BASE, "checkpoints": checkpoints}
    )
    await job.finish(tuning.api.objects, "trainer", event, 9.0, "completed")
    return job


@pytest.mark.parametrize("ending", ["", ":ckpt-step-3"])
async def test_a_job_starts_from_a_tuned_model_or_a_checkpoint_of_it(
    tuning: Tuning, client: AsyncOpenAI, ending: str
) -> None:
    name = (await trained(tuning)).model + ending
    job = await client.fine_tuning.jobs.create(model=name, training_file=await tuning.file())
    assert job.model == name
    start = (await manifest(tuning, job.id)).start_from
    assert start is not None and start.prefix.endswith("step-3/" if ending else "adapter/")


@pytest.mark.parametrize("ending", ["", ":ckpt-step-3"])
async def test_a_tuned_model_of_another_project_is_none(tuning: Tuning, client: AsyncOpenAI, ending: str) -> None:
    name = (await trained(tuning, "acme")).model + ending
    with pytest.raises(openai.NotFoundError):
        await client.fine_tuning.jobs.create(model=name, training_file=await tuning.file())


# --- files ------------------------------------------------------------------------------------------------------------


async def refusal(client: AsyncOpenAI, **body: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.post("/fine_tuning/jobs", body=body, cast_to=object)
    assert caught.value.type == "invalid_request_error" and caught.value.message
    return caught.value


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
@pytest.mark.parametrize("wrong", ["unknown", "other project", "purpose", "expired", "deleted", "../jobs/x", "upload"])
async def test_a_file_that_cannot_be_trained_on_is_refused(
    tuning: Tuning, client: AsyncOpenAI, field: str, wrong: str
) -> None:
    good, ids = await tuning.file(), {"unknown": "file-abc", "../jobs/x": "../jobs/x", "upload": "upload_1"}
    if wrong == "other project":
        ids[wrong] = await tuning.file(project="acme")
    elif wrong == "purpose":
        ids[wrong] = await tuning.file(purpose="assistants")
    elif wrong == "expired":
        ids[wrong] = await tuning.file(expires_at=tuning.api.clock.now)
    elif wrong == "deleted":
        ids[wrong] = await tuning.file()
        await tuning.api.objects.put(f"deleted/files/{ids[wrong]}.json", b"{}")
    error = await refusal(client, **{"model": BASE, "training_file": good, field: ids[wrong]})
    assert (error.code, error.param) == (f"invalid_{field}", field)
    assert tuning.asked() == []


async def test_a_file_that_expires_later_is_good(tuning: Tuning, client: AsyncOpenAI) -> None:
    file = await tuning.file(expires_at=tuning.api.clock.now + 1)
    assert (await client.fine_tuning.jobs.create(model=BASE, training_file=file)).training_file == file


# --- wrong requests ---------------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"n_epochs": 3}, "n_epochs", "unknown_parameter"),
    ({"hyperparameters": {"epochs": 3}}, "hyperparameters.epochs", "unknown_parameter"),
    ({"method": {"type": "supervised", "superviced": {}}}, "method.superviced", "unknown_parameter"),
    ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "invalid_value"),
    ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs", "invalid_value"),
    ({"hyperparameters": {"batch_size": 257}}, "hyperparameters.batch_size", "invalid_value"),
    ({"hyperparameters": []}, "hyperparameters", "invalid_type"),
    ({"suffix": ""}, "suffix", "invalid_value"),
    ({"suffix": "x" * 65}, "suffix", "invalid_value"),
    ({"suffix": 3}, "suffix", "invalid_type"),
    ({"seed": -1}, "seed", "invalid_value"),
    ({"seed": 2**31}, "seed", "invalid_value"),
    ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "invalid_value"),
    ({"metadata": {"k": "x" * 513}}, "metadata.k", "invalid_value"),
    ({"metadata": {"k": None}}, "metadata.k", "invalid_type"),
    ({"method": {}}, "method.type", "missing_required_parameter"),
    ({"method": {"type": "magic"}}, "method.type", "invalid_value"),
    ({"method": {"type": "reinforcement", "reinforcement": {"grader": {}}}}, "method.type", "unsupported_value"),
    ({"method": {"type": "dpo", "supervised": {}}}, "method.supervised", "invalid_value"),
    (
        {"method": {"type": "supervised", "supervised": {"hyperparameters": {"beta": 0.1}}}},
        "method.supervised.hyperparameters.beta",
        "invalid_value",
    ),
    ({"method": DPO, "hyperparameters": {"n_epochs": 3}}, "hyperparameters.n_epochs", "invalid_value"),
    ({"integrations": [{"type": "wandb"}]}, "integrations.0.wandb", "missing_required_parameter"),
    ({"integrations": [{"type": "mlflow", "wandb": {"project": "p"}}]}, "integrations.0.type", "invalid_value"),
    ({"lora": {"r": 3}}, "lora.r", "invalid_value"),
    ({"lora": {"rank": 8}}, "lora.rank", "unknown_parameter"),
    ({"deploy": True, "gate": {"promote": "never"}}, "deploy", "invalid_value"),
    ({"deploy": "sometimes"}, "deploy", "invalid_value"),
    ({"alias": "a/b"}, "alias", "invalid_value"),
    ({"training_file": None}, "training_file", "missing_required_parameter"),
    ({"model": None}, "model", "missing_required_parameter"),
    ({"model": ""}, "model", "invalid_value"),
]


@pytest.mark.parametrize(("body", "param", "code"), WRONG, ids=[json.dumps(body)[:60] for body, _, _ in WRONG])
async def test_a_wrong_field_is_400_and_named(
    tuning: Tuning, client: AsyncOpenAI, body: dict[str, Any], param: str, code: str
) -> None:
    error = await refusal(client, **{"model": BASE, "training_file": await tuning.file(), **body})
    assert (error.param, error.code) == (param, code), error.message
    assert f"'{param.rsplit('.', 1)[0]}" in error.message or param in error.message
    assert tuning.asked() == []


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'"x"', b"{", b'{"seed": NaN}', b"\xff"])
async def test_a_body_that_is_no_object_is_400(tuning: Tuning, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = await tuning.api.client.post("/v1/fine_tuning/jobs", content=body, headers=headers)
    assert answer.status_code == 400 and answer.json()["error"]["message"]


# --- outages and quotas -----------------------------------------------------------------------------------------------


async def test_while_the_store_is_away_it_is_503_and_nothing_is_asked(tuning: Tuning, client: AsyncOpenAI) -> None:
    file = await tuning.file()
    tuning.api.objects.disk.available = False
    with pytest.raises(openai.InternalServerError) as caught:
        await client.fine_tuning.jobs.create(model=BASE, training_file=file)
    assert caught.value.status_code == 503
    tuning.api.objects.disk.available = True
    assert tuning.asked() == []


async def test_without_a_bus_a_job_is_accepted(tuning: Tuning, client: AsyncOpenAI) -> None:
    tuning.api.bus.available = False
    job = await client.fine_tuning.jobs.create(model=BASE, training_file=await tuning.file())
    assert await tuning.api.objects.get(asked_key(job.id))


async def test_another_instance_knows_the_job_before_ingest_has_made_it(tuning: Tuning, client: AsyncOpenAI) -> None:
    job = await client.fine_tuning.jobs.create(model=BASE, training_file=await tuning.file())
    await tuning.api.delete_database()
    assert (await tuning.api.get(f"/v1/fine_tuning/jobs/{job.id}"))["id"] == job.id
    await tuning.api.delete_database()
    await tuning.api.projection.discover()
    assert [each["id"] for each in (await tuning.api.get("/v1/fine_tuning/jobs"))["data"]] == [job.id]
