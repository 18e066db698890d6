"""Makes the pages as the services make them. Each has a text that would run if it were not escaped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.evaluator.report import TrialReport, render, render_trial
from services.validate.check import check
from shared.events import Job, JobSpec
from shared.settings import ValidationSettings
from tests.pages.evaluations import curves, everything, of_labels, of_many
from tests.support.data.byte_base import make_byte_base
from tests.support.data.job_history import T0
from tests.support.data.jobs import make_training
from tests.support.data.reports import HOSTILE, make_report
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.clock import Clock
from tests.unit.api.conftest import Api
from tests.unit.api.sweeps.world import ROWS, KillingStore, World
from tests.unit.validate.survey.conftest import chat, texts

MANY = 500
FILE_NAME = "<img src=x onerror='window.pwned = 3'>.jsonl"


def every_page(folder: Path) -> Mapping[str, Path]:
    """The files of all pages, by name."""
    picture = curves()
    made = {
        "evaluation": render(everything(), picture),
        "labels": render(of_labels(), picture),
        "many-rows": render(of_many(MANY), None),
        "no-rows": render(make_report("some words", rows=0), None),
        "trial": render_trial(_trial(), picture),
        "dataset": _dataset(folder, _good_rows()),
        "bad-dataset": _dataset(folder, [*_good_rows(), *_bad_rows()]),
        **asyncio.run(_sweeps(folder)),
    }
    pages = {name: folder / f"{name}.html" for name in made}
    for name, path in pages.items():
        path.write_text(made[name])
    return pages


def _trial() -> TrialReport:
    return TrialReport(
        job_id="ftjob-1",
        sweep="sweep-aaaa",
        training=make_training(model=HOSTILE[:200], valid_loss=0.42),
        reason=HOSTILE,
    )


# --- datasets ---------------------------------------------------------------------------------------------------------


def _good_rows() -> list[Any]:
    languages = (
        "Bonjour, je voudrais savoir où se trouve ma commande.",
        "Ich hätte gern mein Geld zurück, bitte sehr.",
    )
    return [
        chat("jane.doe@mail.example.org asks, +1 202 555 0123", "we help"),
        chat(HOSTILE, "yes"),
        *(chat(text, "yes" if at % 2 else "no, not at all") for at, text in enumerate(texts(40, words=6))),
        *(chat(f"{text} {at}", "no") for at in range(4) for text in languages),
        *(chat(text, "a long answer " * at) for at, text in enumerate(texts(6, words=9, start=700), 1)),
    ]


def _bad_rows() -> list[Any]:
    return [
        {"messages": [{"role": HOSTILE, "content": "a"}]},
        {"messages": []},
        {"prompt": "other", HOSTILE: 1},
        *[{"messages": [{"role": "user", "content": number}]} for number in range(30)],
    ]


def _dataset(folder: Path, rows: list[Any]) -> str:
    file, page = folder / FILE_NAME, folder / "page.html"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = make_byte_base(folder / "base", context=4096)
    spec = JobSpec.model_validate({"hyperparameters": {"max_length": 256}})
    check(file, spec=spec, base_location=str(base), base="acme/base", limits=ValidationSettings(), html=page)
    return page.read_text()


# --- sweeps -----------------------------------------------------------------------------------------------------------


def _out_of_memory(job: Job) -> str | None:
    return "out_of_memory" if job.spec.metadata["trial"] == "1" else None


async def _sweeps(folder: Path) -> dict[str, str]:
    """The pages of a sweep that found a model, of one under way, and of one that has failed."""
    clock = Clock(T0 + 3600)
    api = Api(folder / "state" / "api.sqlite3", KillingStore(clock=clock), FakeBus(), clock)
    api.start()
    try:
        world = World(api, fails=_out_of_memory)
        world.start()
        space = {
            "learning_rate_multiplier": {"low": 0.2, "high": 5.0, "log": True},
            "r": [8, 16, 32],
            "batch_size": [1, 2, 4],
            "weight_decay": {"low": 0.0, "high": 0.1},
        }
        found = await _sweep(world, space=space, trials=12, parallel=4, spec={"suffix": "support-answers"})
        running = await _sweep(world, looks=8, space=space, trials=12, parallel=4)
        world.fails = lambda job: "out_of_memory"
        lost = await _sweep(world, space=space, trials=2, budget={"seconds": 3600})
        return {"sweep": found, "running-sweep": running, "failed-sweep": lost}
    finally:
        await api.stop()


async def _sweep(world: World, *, looks: int | None = None, **body: Any) -> str:
    """The page of a sweep after its end, or after so many looks of the runner, between which each training takes a
    step."""
    sent = {"file": (FILE_NAME, ROWS)}
    uploaded = (await world.api.client.post("/v1/files", data={"purpose": "fine-tune"}, files=sent)).json()
    asked = await world.api.client.post("/sweeps", json={"training_file": uploaded["id"], **body})
    assert asked.status_code == 200, asked.text
    sweep_id = asked.json()["id"]
    if looks is None:
        await world.until_over(sweep_id)
    for _ in range(looks or 0):
        await world.tick()
        await world.work(whole=False)
    page = await world.api.client.get(f"/sweeps/{sweep_id}/report")
    assert page.status_code == 200
    return page.text
