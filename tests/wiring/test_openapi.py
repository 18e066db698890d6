"""Both services answer what their OpenAPI documents say, and nothing else. schemathesis asks every operation for what
the document allows and for what it does not allow, with odd ids and with those of things that exist."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from docs import openapi
from tests.contract.test_http_face import SERVICES
from tests.support.data.job_history import T0, JobHistory
from tests.support.data.keys import add_key, secret
from tests.support.data.trained_models import BASE, add_trained
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.clock import Clock
from tests.support.fakes.servers import Server
from tests.support.fakes.store import FakeStore
from tests.unit.api.conftest import Api
from tests.unit.inference.conftest import KEY, quick, running_service

__all__ = ["quick"]  # a fixture: nobody waits long for a model server that is down
CHECKS: Any = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 8
"""Of each operation, and each of valid and invalid requests."""
ROW = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'
KEYS = {
    "no key": ({}, 401),
    "an unknown key": ({"authorization": "Bearer nobody's"}, 401),
    "no right": ({"authorization": f"Bearer {secret('n')}"}, 403),
}
Known = Mapping[str, str]
"""By the name of a parameter, an id that exists."""


@asynccontextmanager
async def api(folder: Path) -> AsyncIterator[tuple[str, Known]]:
    clock, done = Clock(T0 + 3600), JobHistory()
    running = Api(folder / "api.sqlite3", FakeStore(clock=clock), FakeBus(), clock)
    running.start()
    await done.write_documents(running.objects)
    await running.take(done.events)
    await add_key(running.objects, "n", rights=("unknown",))
    model = await add_trained(running.objects)
    async with Server(running.app).running() as server:
        yield server.url, {"job_id": done.job_id, "checkpoint": model, "name": "results.csv"}
    await running.stop()


@asynccontextmanager
async def inference(folder: Path) -> AsyncIterator[tuple[str, Known]]:
    objects = FakeStore(clock=Clock(1000.0))
    model = await add_trained(objects)
    await add_key(objects, "n", rights=("unknown",))
    async with running_service(folder, objects, Clock(1000.0)) as service:
        yield str(service.http.base_url).rstrip("/"), {"model": model, "alias": "support"}


WORLDS = {"api": api, "inference": inference}


@cache
def operations(service: str) -> dict[str, APIOperation]:
    """Every operation of the document by its id."""
    generation = GenerationConfig(with_security_parameters=False)
    config = SchemathesisConfig(projects=ProjectsConfig(default=ProjectConfig(generation=generation)))
    schema = schemathesis.openapi.from_dict(openapi.documents()[service], config=config)
    found = [result.ok() for result in schema.get_all_operations()]
    return {operation.definition.raw["operationId"]: operation for operation in found}


class Asking:
    """Sends requests to a service, and holds each answer to the document."""

    def __init__(self, service: str, url: str) -> None:
        self._operations = operations(service)
        self._url = url
        self._session = requests.Session()
        self.never_asked = set(self._operations)

    def __call__(self, name: str, path: Known | None = None, *, status: int = 200, **sent: Any) -> Any:
        """Ask the operation `name` for what it must be able to give."""
        operation = self._operations[name]
        where = operation.path.format(**{key: quote(value, safe="") for key, value in (path or {}).items()})
        headers = {"authorization": f"Bearer {KEY}", **sent.pop("headers", {})}
        answer = self._session.request(operation.method, self._url + where, headers=headers, **sent)
        assert answer.status_code == status, f"{name}: {answer.status_code} {answer.text[:500]}"
        operation.Case(path_parameters=dict(path or {})).validate_response(answer, checks=CHECKS)
        self.never_asked.discard(name)
        return answer.json() if answer.headers["content-type"] == "application/json" else answer.content

    def without_rights(self) -> None:
        """Ask every operation with a key that will not do."""
        for name, operation in self._operations.items():
            path = {each.name: "x" for each in operation.path_parameters}
            for headers, status in KEYS.values():
                self(name, path, status=status, headers={"authorization": None, **headers})

    def anything(self, name: str, mode: GenerationMode, known: Known) -> None:
        """Ask an operation for whatever comes to mind."""

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=self._operations[name].as_strategy(mode), exists=st.booleans())
        def ask(case: schemathesis.Case, exists: bool) -> None:
            if exists:
                case.path_parameters.update({key: known[key] for key in case.path_parameters if key in known})
                case.headers.pop("OpenAI-Project", None)  # what exists is in the usual project
            answer = case.call(
                base_url=self._url, headers={"authorization": f"Bearer {KEY}"}, session=self._session, timeout=30
            )
            case.validate_response(answer, checks=CHECKS)

        ask()


def usual_of_api(ask: Asking, known: Known) -> dict[str, str]:
    """Every operation once, as a client means it. Returns the ids of what was made and is there still."""
    job, model = {"job_id": known["job_id"]}, {"checkpoint": known["checkpoint"]}
    form = {"data": {"purpose": "fine-tune"}, "files": {"file": ROW * 12}}
    file = {"file_id": ask("create_file", **form)["id"]}
    for name in ("retrieve_file", "file_content", "list_files"):
        ask(name, {} if name.startswith("list") else file)
    ask("delete_file", {"file_id": ask("create_file", **form)["id"]})
    wanted = {"bytes": 3, "filename": "notes.txt", "mime_type": "text/plain", "purpose": "user_data"}
    first, second = ({"upload_id": ask("create_upload", json=wanted)["id"]} for _ in range(2))
    part = ask("add_part", first, files={"data": b"abc"})["id"]
    ask("complete_upload", first, json={"part_ids": [part]})
    ask("cancel_upload", second)
    asked = {"model": "gpt-4o-mini", "training_file": file["file_id"], "metadata": {"team": "a"}}
    made = {"job_id": ask("create_fine_tuning_job", json=asked)["id"]}
    ask("list_fine_tuning_jobs", params={"metadata[team]": "a"})
    for name in ("pause", "resume", "cancel"):
        ask(f"{name}_fine_tuning_job", made)
    for name in ("retrieve_fine_tuning_job", "list_fine_tuning_events", "list_fine_tuning_job_checkpoints"):
        ask(name, job)
    grader = {
        "type": "string_check",
        "name": "same",
        "input": "{{sample.output_text}}",
        "reference": "a",
        "operation": "eq",
    }
    ask("validate_grader", json={"grader": grader})
    ask("run_grader", json={"grader": grader, "model_sample": "a"})
    for name in ("list_jobs", "list_keys", "list_webhook_event_types"):
        ask(name)
    for name in ("retrieve_job", "list_events", "retrieve_report"):
        ask(name, job)
    ask("retrieve_artifact", {**job, "name": known["name"]})
    retried = {"job_id": ask("retry_job", job, json={"from": "trainer"})["id"]}
    for name in ("pause_job", "resume_job", "cancel_job"):
        ask(name, retried)
    searched = {"training_file": file["file_id"], "trials": 2}
    sweep, unwanted = ({"sweep_id": ask("create_sweep", json=searched)["id"]} for _ in range(2))
    ask("list_sweeps")
    for name in ("retrieve_sweep", "retrieve_sweep_report"):
        ask(name, sweep)
    ask("cancel_sweep", unwanted)
    given = ask("give_permissions", model, json={"project_ids": ["other"]})["data"][0]["id"]
    ask("list_permissions", model)
    ask("revoke_permission", {**model, "permission_id": given})
    key = {"key_id": ask("create_key", json={"name": "mine"})["id"]}
    ask("retrieve_key", key)
    ask("revoke_key", key)
    about = {"name": "ours", "url": "https://93.184.216.34/hook", "event_types": ["fine_tuning.job.succeeded"]}
    hook, gone = ({"endpoint_id": ask("create_webhook_endpoint", json=about)["id"]} for _ in range(2))
    ask("list_webhook_endpoints")
    ask("retrieve_webhook_endpoint", hook)
    ask("update_webhook_endpoint", hook, json={"name": "new"})
    ask("rotate_webhook_secret", hook, json={"keep_old_secret_active_for_24_hours": True})
    ask("delete_webhook_endpoint", gone)
    ask.never_asked.discard("test_webhook_endpoint")  # it needs a receiver on the internet
    return {**known, **file, **key, **hook, **sweep, **first, "permission_id": given}


def usual_of_inference(ask: Asking, known: Known) -> dict[str, str]:
    model, alias = {"model": known["model"]}, {"alias": known["alias"]}
    ask("list_models")
    ask("retrieve_model", model)
    said = {"messages": [{"role": "user", "content": "hi"}]}
    for streamed in (False, True):
        ask("create_chat_completion", json={**model, **said, "stream": streamed})
        ask("create_completion", json={**model, "prompt": "hi", "stream": streamed})
    ask("create_embedding", json={"model": BASE, "input": "hi"}, status=400)  # this base has none
    ask("deploy", alias, json=model)
    ask("deploy", alias, json={"model": BASE})
    ask("deploy", alias, json={**model, "expected": known["model"]}, status=409)
    ask("roll_back", alias)
    ask("roll_back", alias, status=409)
    ask("retrieve_deployment", alias)
    ask("list_deployments")
    ask("delete_model", model, status=400)  # an alias names it
    return dict(known)


USUAL: Mapping[str, Callable[[Asking, Known], dict[str, str]]] = {"api": usual_of_api, "inference": usual_of_inference}


@pytest.mark.parametrize("service", SERVICES)
async def test_nothing_is_answered_that_the_document_does_not_say(service: str, tmp_path: Path) -> None:
    await asyncio.to_thread(operations, service)
    async with WORLDS[service](tmp_path) as (url, known):
        problems = await asyncio.to_thread(ask_everything, service, url, known)
    assert not problems, "\n\n".join(problems)


def ask_everything(service: str, url: str, known: Known) -> list[str]:
    """Returns what is wrong, one text for each operation."""
    ask = Asking(service, url)
    known = USUAL[service](ask, known)
    assert ask.never_asked == set()
    ask.without_rights()
    problems = list[str]()
    for name in operations(service):
        for mode in GenerationMode:
            try:
                ask.anything(name, mode, known)
            except Exception as error:
                inner = getattr(error, "exceptions", (error,))
                problems.append(f"{name}, {mode} requests: " + "\n".join(str(each)[:1500] for each in inner))
    return problems
