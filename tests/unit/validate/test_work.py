"""The stage: what it writes, what it returns, how it fails and how it stops."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.validate.background import publishing_progress
from services.validate.domain.content import Row
from services.validate.scan import ScanControl
from services.validate.work import ValidateWork
from shared.base import ledger
from shared.errors import InputError
from shared.events import DatasetValidated, JobProgress, Prepared, Reference
from shared.settings import EmbeddingsSettings, ModelSettings, Settings
from shared.stages.stage import Attempt
from tests.support.data.datasets import good, lines
from tests.support.data.jobs import make_attempt, make_job
from tests.support.fakes.clock import Clock
from tests.support.fakes.embeddings import without_embeddings
from tests.support.fakes.store import FakeStore
from tests.support.scrape import scrape
from tests.support.spans import Spans
from tests.unit.validate.conftest import WordTokenizer, completions

BASE = "acme/tiny-instruct"


@pytest.fixture
def settings() -> Settings:
    return Settings(_env_file=None, model=ModelSettings(id=BASE, path="models/tiny", allowed=("acme/other",)))


def attempt(dataset: Reference, *, base: str = BASE, own: Reference | None = None, **spec: Any) -> Attempt:
    return make_attempt(make_job(dataset=dataset, validation_file=own, spec=spec, base=base), "validate", number=2)[0]


def work(objects: FakeStore, settings: Settings, located: list[str] | None = None) -> ValidateWork:
    def load(location: str, base: str) -> WordTokenizer:
        if located is not None:
            located.append(location)
        return WordTokenizer(context=64)

    return ValidateWork(objects, settings, load_tokenizer=load, clock=lambda: 0.0)


async def test_a_good_dataset_becomes_three_splits_and_a_report(objects: FakeStore, settings: Settings) -> None:
    dataset = objects.add("drops/rows.jsonl", lines(*completions(40)))
    event = await work(objects, settings)(attempt(dataset, seed=1))

    assert isinstance(event, DatasetValidated)
    assert (event.job_id, event.method, event.format) == ("ftjob-1", "supervised", "completion")
    assert event.validation is not None and event.test is not None
    sides = {"train": event.train, "validation": event.validation, "test": event.test}
    assert {name: side.examples for name, side in sides.items()} == {"train": 32, "validation": 4, "test": 4}
    assert (event.longest_tokens, event.max_length) == (4, 64)
    for name, side in sides.items():
        assert side.reference.key == f"jobs/ftjob-1/validate/attempt-2/{name}.jsonl"
        assert len(objects.held[side.reference.key].data.splitlines()) == side.examples
        assert side.tokens == 4 * side.examples
    report = json.loads(objects.held[event.report.key].data)
    assert report["ok"] and report["training"]["name"] == "rows.jsonl"
    assert report["estimate"]["seconds"] == event.estimated_seconds


async def test_the_profile_of_the_base_is_stored_and_named(objects: FakeStore, settings: Settings) -> None:
    event = await work(objects, settings)(attempt(objects.add("d", good(10))))
    assert event.base_profile == WordTokenizer().profile.digest
    assert await ledger.load(objects, event.base_profile) == WordTokenizer(context=64).profile


async def test_what_is_set_of_the_profile_is_set_for_the_rows(
    objects: FakeStore, make_base: Callable[..., Path]
) -> None:
    model = {"id": BASE, "path": str(make_base()), "profile": {"chat_template_kwargs": {"enable_thinking": False}}}
    stage = ValidateWork(objects, Settings(_env_file=None, model=ModelSettings.model_validate(model)))
    event = await stage(attempt(objects.add("d", good(10))))
    assert event.base_profile is not None
    stored = await ledger.load(objects, event.base_profile)
    assert stored is not None and stored.chat_template_kwargs == {"enable_thinking": False}


@pytest.mark.parametrize(("policy", "longest"), [("drop", 4), ("truncate", 64)])
async def test_the_longest_row_is_the_longest_that_is_used(
    policy: str, longest: int, objects: FakeStore, settings: Settings
) -> None:
    dataset = objects.add("d", lines(*completions(20), {"prompt": "why?", "completion": "word " * 100}))
    event = await work(objects, settings)(attempt(dataset, hyperparameters={"over_length": policy}))
    assert event.longest_tokens == longest


async def test_a_split_without_a_share_is_not_made(objects: FakeStore, settings: Settings) -> None:
    event = await work(objects, settings)(attempt(objects.add("d", good(10)), splits={"validation": 0, "test": 0}))
    assert (event.train.examples, event.validation, event.test) == (10, None, None)
    assert event.task == "text" and event.page
    assert b"Can be trained on" in objects.held[event.page.key].data


async def test_a_grader_that_no_service_can_run_ends_the_job_before_its_training(
    objects: FakeStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_embeddings(monkeypatch)
    grader = {
        "type": "text_similarity",
        "name": "meaning",
        "input": "{{sample.output_text}}",
        "reference": "{{item.reference}}",
        "evaluation_metric": "cosine",
    }
    asked = attempt(objects.add("d", good(10)), evaluation={"graders": [grader]})
    with pytest.raises(InputError, match=r"pip install 'tunestream\[embeddings\]'") as caught:
        await work(objects, settings)(asked)
    assert (caught.value.code, caught.value.param) == (
        "unsupported_grader",
        "evaluation.graders[0].evaluation_metric",
    )
    there = settings.model_copy(update={"embeddings": EmbeddingsSettings(url="http://embeddings.test/v1")})
    assert isinstance(await work(objects, there)(asked), DatasetValidated)


async def test_a_bad_dataset_ends_the_job_and_leaves_its_report(objects: FakeStore, settings: Settings) -> None:
    broken = {"messages": [{"content": "hi"}, {"role": "assistant", "content": ""}]}
    with pytest.raises(InputError) as caught:
        await work(objects, settings)(attempt(objects.add("d", good(11) + lines(broken))))
    key = "jobs/ftjob-1/validate/attempt-2/report.json"
    assert (caught.value.code, caught.value.param) == ("invalid_training_file", "training_file")
    assert caught.value.message == (
        "The job failed due to an invalid training file. Example 12, message 1. Line 12, messages[0].role: "
        f"'role' is missing; add one of system, user, assistant, tool (and 1 more problem; see tunestream/{key})"
    )
    report = json.loads(objects.held[key].data)
    assert [problem["line"] for problem in report["training"]["problems"]] == [12, 12]
    page = key.replace(".json", ".html")
    assert set(objects.held) == {"d", key, page} and b"Cannot be trained on" in objects.held[page].data


async def test_a_file_of_the_api_is_named_by_its_id(objects: FakeStore, settings: Settings) -> None:
    with pytest.raises(InputError) as caught:
        await work(objects, settings)(attempt(objects.add("files/file-abc/content", good(11)), method="dpo"))
    assert "Input file file-abc is in the fine-tune-" in caught.value.message


async def test_a_validation_file_of_its_own_is_used(objects: FakeStore, settings: Settings) -> None:
    dataset, own = objects.add("d", lines(*completions(20))), objects.add("v", lines(*completions(3, 50)))
    event = await work(objects, settings)(attempt(dataset, own=own))
    assert event.validation is not None
    assert objects.held[event.validation.reference.key].data == objects.held["v"].data
    assert event.train.examples == 18


async def test_the_base_is_loaded_from_where_the_settings_say(objects: FakeStore, settings: Settings) -> None:
    located: list[str] = []
    await work(objects, settings, located)(attempt(objects.add("d", good(10))))
    assert located == ["models/tiny"]


@pytest.mark.parametrize(("base", "setting"), [("acme/other", "MODEL__ALLOWED"), ("acme/secret", "MODEL__ID")])
async def test_a_base_that_is_not_served_is_refused_before_anything_is_loaded(
    objects: FakeStore, settings: Settings, base: str, setting: str
) -> None:
    located: list[str] = []
    with pytest.raises(InputError, match=f"{base} cannot be fine-tuned here: only acme/tiny.*{setting}") as caught:
        await work(objects, settings, located)(attempt(objects.add("d", good(10)), base=base))
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert located == []


async def test_each_phase_has_a_span_without_any_text_of_the_user(
    objects: FakeStore, settings: Settings, spans: Spans
) -> None:
    dataset = objects.add("drops/canary.jsonl", lines(*completions(40)))
    await work(objects, settings)(attempt(dataset))
    assert [span.name for span in spans.all] == [
        *(
            "validate.download",
            "validate.survey",
            "validate.load_tokenizer",
            "validate.check",
            "validate.split",
            "validate.upload",
        )
    ]
    assert "canary" not in "".join(span.to_json() for span in spans.all)


async def test_a_dataset_that_was_overwritten_fails_the_job(objects: FakeStore, settings: Settings) -> None:
    dataset = objects.add("d", good(10))
    objects.add("d", good(11))
    with pytest.raises(InputError, match="Upload it again") as caught:
        await work(objects, settings)(attempt(dataset))
    assert caught.value.code == "file_changed"


async def test_a_cancelled_attempt_stops_its_thread_and_leaves_nothing(
    objects: FakeStore, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    reached, go_on = threading.Event(), threading.Event()

    class Slow(WordTokenizer):
        measured = 0

        def measure(self, batches: Iterable[Sequence[Row]]) -> Iterator[list[Any]]:
            for measured in super().measure(batches):
                self.measured += 1
                reached.set()
                go_on.wait(10)
                yield measured

    tokenizer = Slow()
    stage = ValidateWork(objects, settings, load_tokenizer=lambda location, base: tokenizer)
    task = asyncio.create_task(stage(attempt(objects.add("d", lines(*completions(5000))))))
    await asyncio.to_thread(reached.wait, 10)
    task.cancel()
    asyncio.get_running_loop().call_soon(go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tokenizer.measured == 1
    assert list(tmp_path.iterdir()) == []
    assert set(objects.held) == {"d"}


async def test_progress_has_rows_share_and_the_time_left() -> None:
    published: list[JobProgress] = []
    done = asyncio.Event()

    async def publish(event: JobProgress) -> None:
        published.append(event)
        done.set()

    job = attempt(Reference(bucket="b", key="k", etag="", size=0, sha256="")).job
    control, clock = ScanControl(), Clock(100.0)
    async with publishing_progress(Attempt(job, {}, "validate", 1, "p/", publish), "checking", control, clock, every=0):
        control.on_progress("training", 100, 0.1)
        clock.now += 30
        control.on_progress("training", 400, 0.4)
        done.clear()
        await done.wait()
    last = published[-1]
    assert last.message == "checking the training file: 400 rows, 40%"
    assert (last.eta_seconds, last.data) == (45.0, {"rows": 400, "share": 0.4, "file": "training"})


async def test_a_scrape_sees_rows_bytes_and_problems_by_code(objects: FakeStore, settings: Settings) -> None:
    data = lines(*completions(20), {"prompt": "only a prompt"})
    before = await scrape()
    with pytest.raises(InputError):
        await work(objects, settings)(attempt(objects.add("d", data)))
    grown = (await scrape()).since(before)

    assert grown("tunestream_validation_rows_total") == 21
    assert grown("tunestream_validation_bytes_total") == len(data)
    assert grown("tunestream_validation_problems_total", code="missing_field", severity="error") == 1


async def test_a_bad_row_that_ingest_has_made_is_named_by_its_row_in_the_users_own_file(
    objects: FakeStore, settings: Settings
) -> None:
    dropped = objects.add("drops/tickets.csv", b"question,answer")
    rows = [*completions(12), {"prompt": 5, "completion": "x"}]
    made = objects.add(
        "rows", lines(*({**row, "metadata": {"source_row": str(n + 100)}} for n, row in enumerate(rows)))
    )
    job = make_job(dataset=dropped, base=BASE)
    prepared = Prepared(dataset=made, report=objects.add("mining.json", b"{}"))
    tried, _ = make_attempt(job.model_copy(update={"prepared": prepared}), "validate", number=2)
    with pytest.raises(InputError, match=r"Line 13 was made of row 112 of tickets\.csv\.$"):
        await work(objects, settings)(tried)
    report = json.loads(objects.held["jobs/ftjob-1/validate/attempt-2/report.json"].data)
    assert report["training"]["name"] == "tickets.csv"
