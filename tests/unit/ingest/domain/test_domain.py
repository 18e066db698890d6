"""Which objects are datasets, which settings are allowed, and when two requests are the same job."""

from __future__ import annotations

import pytest

from services.ingest.domain import datasets
from services.ingest.job_settings import parse_spec
from shared.errors import InputError
from shared.events import JobSpec, Origin, Reference
from shared.jobs import manifest as jobs
from shared.stages.ledger import Entry

DATASET = Reference(bucket="datasets", key="team/support tickets.jsonl", etag="e", size=9, sha256="a" * 64)


def job(dataset: Reference = DATASET, spec: JobSpec | None = None, **changes: object):
    arguments = {
        "validation_file": None, "base": "org/Base-1B", "organization": "acme", "origin": Origin(),
        "traceparent": "t", "now": 1.0, "salt": None,
    } | changes  # fmt: skip
    return jobs.job_of(dataset, spec or JobSpec(), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "taken"),
    [
        ("a.jsonl", True),
        ("deep/folder/A.JSONL", True),
        ("a.json", True),
        ("a.job.yaml", False),
        ("a.job.json", False),
        ("a.jsonl.part", False),
        ("a.jsonl.crdownload", False),
        (".a.jsonl", False),
        ("_a.jsonl", False),
        ("_announced/a.jsonl", False),
        ("folder/", False),
        ("notes.txt", False),
    ],
)
def test_datasets_are_told_from_sidecars_and_unfinished_uploads(key: str, taken: bool) -> None:
    assert datasets.is_dataset(key) is taken


def test_a_fresh_object_is_looked_at_twice() -> None:
    entry = Entry("a.jsonl", "etag-2", 1, modified=100.0)
    assert not datasets.settled(entry, None, now=100.5, settle_seconds=1)
    assert not datasets.settled(entry, "etag-1", now=100.5, settle_seconds=1)
    assert datasets.settled(entry, "etag-2", now=100.5, settle_seconds=1)
    assert datasets.settled(entry, None, now=101.0, settle_seconds=1)


def test_the_same_request_is_the_same_job_whenever_it_is_made() -> None:
    assert job().job_id == job(now=99.0, traceparent="other").job_id
    assert job(spec=JobSpec.model_validate({"hyperparameters": {"n_epochs": "auto"}})).job_id == job().job_id


@pytest.mark.parametrize(
    "other",
    [
        job(dataset=DATASET.model_copy(update={"sha256": "b" * 64})),
        job(dataset=DATASET.model_copy(update={"key": "elsewhere.jsonl"})),
        job(spec=JobSpec(suffix="x")),
        job(spec=JobSpec(rerun=1)),
        job(salt="unreadable"),
    ],
)
def test_other_bytes_places_or_settings_are_another_job(other) -> None:
    assert other.job_id != job().job_id


def test_the_model_id_is_openais_and_leads_back_to_the_job() -> None:
    made = job(spec=JobSpec(suffix="support bot"))
    base, org, suffix, eight = made.model.removeprefix("ft:").split(":")
    assert (base, org, suffix) == ("Base-1B", "acme", "support-bot")
    assert made.job_id.startswith(f"ftjob-{eight}") and len(eight) == 8
    assert "/" not in made.model


def test_the_alias_is_said_or_follows_from_suffix_or_file_name() -> None:
    assert job(spec=JobSpec(alias="prod", suffix="s")).alias == "prod"
    assert job(spec=JobSpec(suffix="s")).alias == "s"
    assert job().alias == "team-support-tickets"


@pytest.mark.parametrize(
    ("key", "alias"),
    [
        ("support.jsonl", "support"),
        ("Support Tickets.v2.jsonl", "support-tickets.v2"),
        ("team-a/train.jsonl", "team-a-train"),
        ("team-b/train.jsonl", "team-b-train"),
        ("projects/acme/team/train.jsonl", "team-train"),
        ("projects/train.jsonl", "projects-train"),
        ("_announced/train.jsonl", "train"),
        ("客服 对话.jsonl", "客服-对话"),
        ("Поддержка/заявки.jsonl", "поддержка-заявки"),
        ("हिन्दी.jsonl", "हिन्दी"),
        ("cafe\u0301.jsonl", "caf\u00e9"),
        ("Ｓｕｐｐｏｒｔ.jsonl", "support"),
        ("🙂.jsonl", "model"),
    ],
)
def test_a_file_name_of_any_script_is_an_alias(key: str, alias: str) -> None:
    assert job(dataset=DATASET.model_copy(update={"key": key})).alias == alias


@pytest.mark.parametrize(
    ("key", "project"), [("projects/acme/a.jsonl", "acme"), ("a.jsonl", "default"), ("projects/a.jsonl", "default")]
)
def test_a_drop_belongs_to_the_project_of_its_folder_unless_another_is_named(key: str, project: str) -> None:
    dataset = DATASET.model_copy(update={"key": key})
    assert (job(dataset=dataset).project, job(dataset=dataset, project="other").project) == (project, "other")


def test_long_names_that_begin_alike_are_different_aliases() -> None:
    folder = "a-folder/with-a-very-long-name/and-another-below-it/and-one-more/"
    one, other = (job(dataset=DATASET.model_copy(update={"key": f"{folder}{name}.jsonl"})).alias for name in "ab")
    assert one != other
    assert one.startswith("a-folder-with-a-very-long-name") and len(one) == len(other) == 64


def test_the_alias_of_the_settings_may_have_letters_of_every_script() -> None:
    assert job(spec=JobSpec(alias="Поддержка")).alias == "поддержка"
    assert job(spec=JobSpec(suffix="客服 2")).alias == "客服-2"
    for wrong in ("two words", "-a", ".a", "a/b", "a" * 65, "a:b", "\u0301a"):
        with pytest.raises(ValueError, match="alias"):
            JobSpec(alias=wrong)


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("hyperparameters: {n_epochs: 900}", "hyperparameters.n_epochs", "n_epochs"),
        ("suffixx: a", "suffixx", "suffixx"),
        ("- a list", None, "field: value"),
        ("a: b: c", None, "line 1"),
        ("lora: {r: 7}", "lora.r", "lora.r"),
    ],
)
def test_wrong_settings_name_the_file_and_the_field(text: str, field: str | None, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_spec(text.encode(), "a.job.yaml")
    assert "a.job.yaml" in caught.value.message and says in caught.value.message
    assert caught.value.code == "invalid_job_settings"
    assert field is None or (caught.value.param or "").startswith(field)


def test_no_settings_are_all_defaults() -> None:
    assert parse_spec(b"", "x") == JobSpec()
    assert parse_spec(b"suffix: a\nlora: {r: 8}\n", "x").lora.r == 8
