"""A key cannot see, use, change or delete anything of another project, on any route of both services: whatever it
names is, for it, a thing that does not exist. `project_matrix.py` is the table of all routes."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Match, Route

from services.api.app import RIGHTS as API_RIGHTS
from services.inference.app import RIGHTS as INFERENCE_RIGHTS
from shared.http import forward, health
from shared.stages.ledger import DEPLOYMENTS, deployment_key
from tests.contract.project_matrix import MATRIX, NAMES_NOTHING, Ask
from tests.contract.two_projects import Project, TwoProjects, two_projects
from tests.support.data.project_things import Things, nobodys
from tests.support.data.trained_models import BASE

OWN_HEADERS = {"x-request-id", "date", "content-length", "openai-processing-ms"}
"""Of each answer, whatever was asked."""
_SECONDS = re.compile(r'"execution_time":[0-9.e-]+')
KINDS = ("user", "admin")
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
HEADERS = (NO_HEADERS, {"x-stainless-retry-count": "1", "openai-organization": "first"})
"""What else clients send: that they try again, and whose they are."""
PUBLIC = {*health.PATHS, "/openapi.json"}
NO_THINGS = {"name"}
"""Parameters of paths that name nothing by itself: a file of a job."""
NOT_THERE = ("/v1/organization",)
"""What is handed on, and nobody answers."""
ANY_THINGS = {word for ask in MATRIX for _, word in re.findall(r"\{(my\.)?(\w+)\}", f"{ask.path} {ask.sent}")}


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[TwoProjects]:
    async with two_projects(tmp_path) as opened:
        yield opened


# --- the table ----------------------------------------------------------------------------------------------------


def test_every_route_is_in_the_matrix(both: TwoProjects) -> None:
    """And each of its parameters stands for a thing of another project in some request."""
    wanted: dict[str, set[str]] = {}
    for app in both.apps.values():
        for route in own_routes(app):
            for method in (route.methods or set()) - {"HEAD"}:
                if f"{method} {route.path}" not in NAMES_NOTHING:
                    wanted[f"{method} {route.path}"] = set(route.param_convertors) - NO_THINGS
    for ask in MATRIX:
        reached = [found for app in both.apps.values() if (found := reaches(app, ask))]
        assert reached, f"no route takes {ask}"
        for name, others in reached:
            if name in wanted:
                wanted[name] -= others
                if not wanted[name]:
                    del wanted[name]
    assert not wanted, "say in tests/contract/project_matrix.py how requests name what belongs to a project"


@pytest.mark.parametrize("prefix", [*forward.CONTROL_PLANE, *forward.MODELS])
def test_what_is_handed_on_is_in_the_matrix(prefix: str) -> None:
    paths = [ask.path for ask in MATRIX] + [name.partition(" ")[2] for name in NAMES_NOTHING]
    assert prefix in NOT_THERE or any(path.startswith(prefix) for path in paths)


async def test_there_is_nothing_of_organizations(both: TwoProjects) -> None:
    headers = {"authorization": f"Bearer {both.second.key('admin')}"}
    for path in NOT_THERE:
        for service in both.services.values():
            for below in ("", "/projects", "/projects/first/api_keys"):
                answer = await service.get(path + below, headers=headers)
                assert answer.json()["error"]["code"] == "unknown_url"


def own_routes(app: FastAPI) -> list[Route]:
    """The routes that need a key, and answer themselves."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    assert len(routes) == len(app.routes), "this test cannot walk another kind of routes"
    return [route for route in routes if route.path not in PUBLIC and not is_handed_on(route)]


def is_handed_on(route: Route) -> bool:
    return isinstance(route.endpoint, forward._Endpoint)


def reaches(app: FastAPI, ask: Ask) -> tuple[str, set[str]] | None:
    """Method and path of the route that takes a request, and the parameters in which it names a thing of another
    project."""
    words = Things({word: f"another-{word}" for word in ANY_THINGS})
    path, _ = ask.filled(words, Things(dict.fromkeys(ANY_THINGS, "own")))
    scope = {"type": "http", "method": ask.method, "path": path.partition("?")[0], "root_path": ""}
    for route in app.routes:
        match, child = route.matches(scope)
        if match is Match.FULL and isinstance(route, Route):
            others = {name for name, value in child["path_params"].items() if value.startswith("another-")}
            return f"{ask.method} {route.path}", others
    return None


# --- the requests -------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a client sees, and which calls of the store it took. What the request has named reads as its word."""

    status: int
    body: str
    headers: dict[str, str]
    calls: list[str]


@dataclass(frozen=True)
class Sender:
    """A client of one service, with a key of a project."""

    both: TwoProjects
    service: str
    project: Project
    kind: str

    async def send(self, ask: Ask, things: Things, headers: Mapping[str, str] = NO_HEADERS) -> httpx.Response:
        path, sent = ask.filled(things, self.project.things)
        key = {"authorization": f"Bearer {self.project.key(self.kind)}"}
        return await self.both.services[self.service].request(ask.method, path, headers={**key, **headers}, **sent)

    async def answer(self, ask: Ask, things: Things, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
        calls = self.both.objects.calls
        calls.clear()
        answer = await self.send(ask, things, headers)
        named = {word: things[word] for word in sorted(ask.named(), key=lambda word: len(things[word]), reverse=True)}

        def plain(text: str) -> str:
            for word, thing in named.items():
                text = text.replace(thing, f"<{word}>")
            return _SECONDS.sub("", text)

        shown = {name: plain(value) for name, value in answer.headers.items() if name not in OWN_HEADERS}
        # the inference service remembers names for a second, so its calls say nothing
        counted = [(call, key) for call, key in calls if not key.startswith(DEPLOYMENTS)]
        about = sorted(f"{call} {plain(key)}" for call, key in counted if any(each in key for each in named.values()))
        return Answer(answer.status_code, plain(answer.text), shown, about)


def senders(both: TwoProjects, project: Project, ask: Ask, kind: str) -> list[Sender]:
    """With the key `kind` of a project, through each service that takes the request."""
    return [Sender(both, name, project, kind) for name, app in both.apps.items() if reaches(app, ask)]


def strangers(both: TwoProjects, kinds: tuple[str, ...] = KINDS) -> Iterator[tuple[Ask, Sender]]:
    """Every request, from the second project."""
    for ask in MATRIX:
        for kind in kinds:
            if kind == "user" or not ask.anybodys:
                yield from ((ask, sender) for sender in senders(both, both.second, ask, kind))


@pytest.mark.parametrize("store", ["well", "away"])
async def test_what_another_project_has_does_not_exist(both: TwoProjects, store: str) -> None:
    """Every answer is the one about a thing that does not exist, and takes the same calls of the store; nothing of the
    owner is shown or changed."""
    others, nobody, wrong = both.first.things, nobodys(both.first.things), list[str]()
    seen, before = await view(both, both.first), held(both)
    both.objects.available = store == "well"
    for ask, sender in strangers(both):
        for headers in HEADERS if store == "well" else HEADERS[:1]:
            missing = await sender.answer(ask, nobody, headers)
            found = await sender.answer(ask, others, headers)
            if found != missing:
                wrong.append(
                    f"{ask} with the key {sender.kind}:\n{found}\nis not as for what does not exist:\n{missing}"
                )
            wrong += [f"{ask} shows {thing}" for thing in others.values() if thing in f"{found[:3]}"]
    both.objects.available = True
    assert not wrong, "\n".join(wrong)
    own = deployment_key("", both.second.name).removesuffix(".json")  # of aliases that it has made
    after = {key: etag for key, etag in held(both).items() if not key.startswith(own)}
    assert after == {key: etag for key, etag in before.items() if not key.startswith(own)}
    assert await view(both, both.first) == seen


async def view(both: TwoProjects, project: Project) -> dict[str, Answer]:
    """What a project sees of its things."""
    return {
        f"{sender.service}: {ask}": (await sender.answer(ask, project.things))._replace(calls=[])
        for ask in MATRIX
        if ask.method == "GET"
        for sender in senders(both, project, ask, "admin")
    }


def held(both: TwoProjects) -> dict[str, str]:
    """The ETags of all objects, by key."""
    return {key: each.etag for key, each in both.objects.held.items()}


@pytest.mark.parametrize("service", ["api", "inference"])
async def test_the_owner_is_served(both: TwoProjects, service: str) -> None:
    """The same requests: so the others are refused because of the project."""
    things, nobody, wrong = both.first.things, nobodys(both.first.things), list[str]()
    for ask in MATRIX:
        kind = "user" if needed(ask) & {"train", "serve"} else "admin"
        found = senders(both, both.first, ask, kind)
        sender = next((each for each in found if each.service == service), found[0])
        missing = await sender.answer(ask, nobody)
        answer = await sender.answer(ask, things)
        code = json.loads(answer.body)["error"]["code"] if answer.status >= 400 else None
        if ask.works not in (answer.status, code):
            wrong.append(f"{ask} is answered {answer.status} {answer.body}")
        if ask.named() and answer[:3] == missing[:3]:
            wrong.append(f"{ask} is answered as for what does not exist: {missing}")
        if (
            ask.shows
            and (f"<{ask.shows}>" if ask.shows in ask.named() else things.get(ask.shows, ask.shows)) not in answer.body
        ):
            wrong.append(f"{ask} does not show {ask.shows}: {answer.body}")
    assert not wrong, "\n".join(wrong)


def needed(ask: Ask) -> set[str]:
    """The rights of which the request needs one."""
    any_id = dict.fromkeys(ANY_THINGS, "x")
    path = ask.filled(any_id, any_id)[0].partition("?")[0]
    return {right for table in (API_RIGHTS, INFERENCE_RIGHTS) for right in table.needed(ask.method, path)}


async def test_the_header_of_a_project_opens_no_other(both: TwoProjects) -> None:
    """Whether there is such a project cannot be seen, either."""
    for ask, sender in strangers(both, ("user",)):
        for things in (both.first.things, nobodys(both.first.things)):
            answers = [await sender.send(ask, things, {"openai-project": each}) for each in ("first", "nobodys")]
            found, missing = [(answer.status_code, answer.json()) for answer in answers]
            assert found == missing, ask
            assert (found[0], found[1]["error"]["code"]) == (401, "mismatched_project"), ask


async def test_lists_hold_what_a_project_has_and_nothing_else(both: TwoProjects) -> None:
    """All pages of them, for both projects."""
    for ask in MATRIX:
        if not ask.shows or ask.named() or ask.anybodys or ask.method != "GET":
            continue
        for mine, others in ((both.first, both.second), (both.second, both.first)):
            for sender in senders(both, mine, ask, "admin"):
                text = (await sender.send(ask, mine.things)).text
                assert mine.things[ask.shows] in text, ask
                assert [thing for thing in others.things.values() if thing in text] == [], ask


async def test_the_second_try_of_another_project_finds_no_first(both: TwoProjects) -> None:
    """The same body, sent again within ten minutes: what the first project has asked for is not the answer."""
    made = Ask("POST", "/v1/fine_tuning/jobs", {"json": {"model": BASE, "training_file": "{file}"}})
    first, second = (Sender(both, "api", project, "user") for project in (both.first, both.second))
    job = (await first.send(made, both.first.things)).json()["id"]
    again = {"x-stainless-retry-count": "1"}

    assert (await first.send(made, both.first.things, again)).json()["id"] == job
    answer = await second.send(made, both.first.things, again)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_training_file")
