"""The api and the inference endpoint answer alike: one base_url serves both, so a client must not see a difference."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import Message

from services.api.app import make_app
from services.api.database import ProjectionDatabase
from services.api.projection import Projection
from services.api.resources.dependencies import Dependencies
from services.inference.app import build
from shared import strict_json
from shared.errors import InputError, StoreUnavailable
from shared.events import StrictModel
from shared.http import health
from shared.http.json_route import JsonRoute
from shared.http.responses import JsonResponse
from shared.service import Context
from shared.settings import Settings
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore

KEYS = ("first", "second")
KEY = {"authorization": "Bearer second"}
JSON = {"content-type": "application/json"}
NOBODY = "http://127.0.0.1:1"  # nothing listens there
CHUNK = b"x" * 2**20
SERVICES = ("api", "inference")


class Probe(StrictModel):
    count: int


def add_probes(app: FastAPI) -> None:
    """Add routes that raise each kind of error."""

    @app.get("/probe")
    async def query(limit: int) -> dict[str, float]:
        return {"loss": float("nan")}

    @app.post("/probe")
    async def body(probe: Probe) -> None: ...

    @app.get("/probe/store")
    async def store() -> None:
        raise StoreUnavailable("the address of the store")

    @app.get("/probe/input")
    async def user() -> None:
        raise InputError("wrong_suffix", "Choose another suffix.", "suffix")

    @app.get("/probe/unknown-model")
    async def unknown_model() -> None:
        raise InputError("model_not_found", "No such model.", "model")

    @app.get("/probe/bug")
    async def bug() -> None:
        raise RuntimeError("user text")


async def open_app(
    service: str,
    stack: AsyncExitStack,
    folder: Path,
    keys: tuple[str, ...],
    objects: FakeStore | None = None,
    *,
    probes: bool = True,
) -> FastAPI:
    """The app of `service`, composed as in production, with the added routes, or without (`probes`)."""
    objects = objects or FakeStore()
    if service == "api":
        database = ProjectionDatabase(folder / "api.sqlite3")
        stack.push_async_callback(database.close)
        projection = Projection(database, objects, discover_seconds=10)
        app = make_app(Dependencies(database, projection, objects, FakeBus(), "http://api.test"), keys)
    else:
        settings = Settings.model_validate(
            {
                "vllm": {"url": NOBODY},
                "api": {"url": NOBODY},
                "inference": {"adapter_dir": folder, "api_keys": keys},
            }
        )
        parts = build(Context(settings, objects, FakeBus()))
        assert parts.app is not None and parts.close is not None
        stack.push_async_callback(parts.close)
        app = parts.app
    if probes:
        add_probes(app)
    health.mount(app, {})
    return app


@pytest.fixture(params=SERVICES)
async def app(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """Each app in turn, with keys."""
    async with AsyncExitStack() as stack:
        yield await open_app(request.param, stack, tmp_path, KEYS)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.test") as opened:
        yield opened


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "code", "param"),
    [
        ("GET", "/nowhere", {}, 404, "unknown_url", None),
        ("DELETE", "/probe", {}, 405, "method_not_supported", None),
        ("GET", "/probe?limit=many", {}, 400, "invalid_value", "limit"),
        ("GET", "/probe", {}, 400, "missing_required_parameter", "limit"),
        ("POST", "/probe", {"json": {"count": "many"}}, 400, "invalid_value", "count"),
        ("POST", "/probe", {"json": [1]}, 400, "invalid_type", None),
        ("POST", "/probe", {"content": b"{", "headers": JSON}, 400, "invalid_json", None),
        ("POST", "/probe", {"content": b'{"count": NaN}', "headers": JSON}, 400, "invalid_json", "count"),
        ("POST", "/probe", {"content": b'{"count": 1e999}', "headers": JSON}, 400, "invalid_json", "count"),
        ("POST", "/probe", {"content": b'{"count": "\\ud800"}', "headers": JSON}, 400, "invalid_json", "count"),
        ("POST", "/probe", {"content": b"[" * 100_000, "headers": JSON}, 400, "invalid_json", None),
        ("POST", "/probe", {"content": b"\xff", "headers": JSON}, 400, "invalid_json", None),
        (
            "POST",
            "/probe",
            {"content": b'{"count": 1}', "headers": {"content-type": "text"}},
            400,
            "invalid_type",
            None,
        ),
        ("POST", "/probe", {"content": b"", "headers": {"content-length": "9" * 5000}}, 413, "body_too_large", None),
        ("POST", "/probe", {"content": b"{}", "headers": {"content-length": b"\xb2"}}, 400, "invalid_type", None),
        ("POST", "/probe", {"content": b"x" * (2**20 + 1)}, 413, "body_too_large", None),
        ("GET", "/probe/store", {}, 503, "service_unavailable", None),
        ("GET", "/probe/input", {}, 400, "wrong_suffix", "suffix"),
        ("GET", "/probe/unknown-model", {}, 404, "model_not_found", "model"),
        ("GET", "/probe/bug", {}, 500, "internal_error", None),
    ],
)
async def test_a_request_that_goes_wrong_gets_the_same_answer_from_both(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    sent: dict[str, Any],
    status: int,
    code: str,
    param: str | None,
) -> None:
    answer = await client.request(method, path, **{**sent, "headers": {**KEY, **sent.get("headers", {})}})

    error = error_of(answer)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    assert (answer.status_code, error["type"], error["code"], error["param"]) == (status, kind, code, param)
    assert ("allow" in answer.headers) == (status == 405)
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "user text" not in answer.text and "address of the store" not in answer.text
    if status == 500:
        assert answer.headers["x-request-id"] in error["message"]


@pytest.mark.parametrize(
    ("service", "path", "allowed"),
    [
        ("api", "/v1/files", "GET, POST"),
        ("api", "/keys/key_x", "DELETE, GET"),
        ("inference", "/v1/models/ft:a/b", "DELETE, GET"),
        ("inference", "/v1/chat/completions", "POST"),
    ],
)
async def test_a_wrong_method_is_told_all_that_are_right(service: str, path: str, allowed: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        app = await open_app(service, stack, tmp_path, KEYS)
        transport = httpx.ASGITransport(app)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://x.test"))
        answer = await client.patch(path, headers=KEY)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert allowed in error_of(answer)["message"]


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "missing_api_key"),
        ("Basic second", "missing_api_key"),
        ("Bearer ", "missing_api_key"),
        ("Bearer third", "invalid_api_key"),
    ],
)
@pytest.mark.parametrize("path", ["/probe", "/nowhere", "/health/ready/", "/metrics"])
async def test_without_a_key_nothing_is_answered(
    client: httpx.AsyncClient, path: str, authorization: str | None, code: str
) -> None:
    answer = await client.get(path, headers={"authorization": authorization} if authorization else {})

    error = error_of(answer)
    assert (answer.status_code, error["type"], error["code"]) == (401, "invalid_request_error", code)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_health_needs_no_key(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 200


async def test_the_public_has_no_metrics(client: httpx.AsyncClient) -> None:
    """They name models, and how much each is used."""
    assert (await client.get("/metrics", headers=KEY)).status_code == 404


def test_every_route_with_a_body_reads_it_strictly(app: FastAPI) -> None:
    with_body = [route for route in app.routes if isinstance(route, APIRoute) and route.body_field is not None]
    assert with_body
    assert all(isinstance(route, JsonRoute) for route in with_body)


async def test_an_answer_that_repeats_odd_text_is_no_bug() -> None:
    answer = JsonResponse({"a\ud800": ["\udfff", ("é", float("nan"))]})
    assert strict_json.loads(bytes(answer.body)) == {"a\\ud800": ["\\udfff", ["é", None]]}


async def test_a_figure_that_is_not_a_number_is_null(client: httpx.AsyncClient) -> None:
    answer = await client.get("/probe?limit=1", headers=KEY)
    assert (answer.status_code, answer.json()) == (200, {"loss": None})


async def test_a_body_is_not_read_before_the_key_is_known(app: FastAPI) -> None:
    status, error, read = await send(app, "/probe", chunks=300)

    assert (status, error["code"], read) == (401, "missing_api_key", 0)


async def test_a_body_that_says_it_is_too_large_is_not_read(app: FastAPI) -> None:
    status, error, read = await send(app, "/probe", chunks=300, headers={**KEY, "content-length": str(300 * 2**20)})

    assert (status, error["code"], read) == (413, "body_too_large", 0)


async def test_a_body_that_does_not_tell_its_size_is_read_up_to_the_limit(app: FastAPI) -> None:
    status, error, read = await send(app, "/probe", chunks=300, headers=KEY)

    assert (status, error["code"], read) == (413, "body_too_large", 2 * 2**20)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_generation_may_be_larger_than_other_requests(tmp_path: Path, declared: bool) -> None:
    async with AsyncExitStack() as stack:
        app = await open_app("inference", stack, tmp_path, KEYS)
        for chunks, expected in ((20, 400), (33, 413)):
            length = {"content-length": str(chunks * 2**20)} if declared else {}
            status, error, _ = await send(app, "/v1/chat/completions", chunks=chunks, headers={**KEY, **length})
            assert (status, error["code"]) == (expected, "invalid_json" if expected == 400 else "body_too_large")


async def test_the_endpoint_does_not_limit_what_it_forwards_to_the_api(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        app = await open_app("inference", stack, tmp_path, KEYS)
        length = {"content-length": str(300 * 2**20)}
        status, error, _ = await send(app, "/v1/files", chunks=300, headers={**KEY, **length})
    assert (status, error["code"]) == (502, "bad_gateway")


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, which must be a complete OpenAI envelope."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert len(answer.headers["x-request-id"]) == 32
    return dict(body["error"])


async def send(
    app: FastAPI, path: str, *, chunks: int, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any], int]:
    """POST a body of `chunks` MiB. Returns status and error of the answer, and how many bytes of the body the app
    read."""
    read, status, answered = 0, 0, b""

    async def receive() -> Message:
        nonlocal read
        if read == chunks * len(CHUNK):
            return {"type": "http.disconnect"}
        read += len(CHUNK)
        return {"type": "http.request", "body": CHUNK, "more_body": read < chunks * len(CHUNK)}

    async def take(message: Message) -> None:
        nonlocal status, answered
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            answered += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"content-type", b"application/json"),
            *((name.encode(), value.encode()) for name, value in (headers or {}).items()),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("service.test", 80),
    }
    await app(scope, receive, take)
    return status, json.loads(answered)["error"], read
