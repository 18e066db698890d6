"""The OpenAPI documents: what is served is what is committed, and a reader of the rendered page understands it. That
the services keep to them is shown in `tests/wiring/test_openapi.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from docs.generate import HERE
from shared.http import forward, health
from tests.contract.test_http_face import SERVICES, open_app

ELSEWHERE = (*forward.CONTROL_PLANE, *forward.MODELS)
EVERYWHERE = {"400", "401", "403", "413", "429", "500", "503"}


def committed(service: str) -> dict[str, Any]:
    return dict(json.loads((HERE / "openapi" / f"{service}.json").read_text()))


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


@pytest.mark.parametrize("service", SERVICES)
async def test_the_document_that_is_served_is_the_committed_one(service: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        app = await open_app(service, stack, tmp_path, ("key",), probes=False)
        transport = httpx.ASGITransport(app)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://x.test"))
        answer = await client.get("/openapi.json")  # it needs no key
    assert answer.status_code == 200
    assert answer.json() == committed(service)


@pytest.mark.parametrize("service", SERVICES)
async def test_every_route_is_in_it_or_forwarded(service: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        app = await open_app(service, stack, tmp_path, (), probes=False)
        routes = [route for route in app.routes if isinstance(route, Route)]
    there = {(method, path) for method, path, _ in operations(committed(service))}
    for route in routes:
        path = route.path.replace(":path}", "}")
        if path in (*health.PATHS, "/openapi.json"):
            continue
        wanted = {(method, path) for method in (route.methods or set()) - {"HEAD"}}
        handed_on = path.removesuffix("/{rest}") in ELSEWHERE and "DELETE" in (route.methods or ())
        assert wanted <= there or handed_on, f"{wanted} is not in the document"


@pytest.mark.parametrize("service", SERVICES)
def test_a_reader_of_the_page_understands_it(service: str) -> None:
    document = committed(service)
    tags = {tag["name"] for tag in document["tags"] if tag["description"].endswith(".")}
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for method, path, operation in operations(document):
        assert operation["summary"], f"{method} {path}"
        assert operation.get("description", "").endswith((".", ".)")), f"{method} {path} has no description"
        assert set(operation["tags"]) <= tags and len(operation["tags"]) == 1


@pytest.mark.parametrize("service", SERVICES)
def test_errors_come_in_the_envelope_and_keys_are_needed(service: str) -> None:
    document = committed(service)
    assert document["security"] == [{"api_key": []}]
    assert document["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"
    for method, path, operation in operations(document):
        answers = operation["responses"]
        assert answers.keys() >= EVERYWHERE and "422" not in answers, f"{method} {path}"
        assert ("404" in answers) or "{" not in path
        for status, answer in answers.items():
            if status >= "400":
                name = answer["$ref"].rsplit("/", 1)[1]
                content = document["components"]["responses"][name]["content"]
                assert content == {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
            else:
                assert answer["content"] and all(each["schema"] for each in answer["content"].values())
    assert "HTTPValidationError" not in json.dumps(document)
