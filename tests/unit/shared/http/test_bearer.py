"""Who gets in: keys, projects, rights and limits, as a client sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI, Request

from shared.access.keyring import Keyring, limits_of
from shared.access.principal import principal_of
from shared.access.rights import ANY, OPENAI, Line, RightsTable
from shared.http.app import make_http_app
from shared.http.json_route import JsonRoute
from tests.support.data.keys import add_key, id_of, revoke_key, secret
from tests.support.fakes.servers import Server
from tests.support.fakes.store import FakeStore

ROOT = "root"
RIGHTS = RightsTable((*OPENAI, Line(ANY, "/jobs*", ("train",)), Line(ANY, "/keys*", ("admin",))))
CHAT = "/v1/chat/completions"


def make_app(store: FakeStore, roots: tuple[str, ...] = (ROOT,)) -> FastAPI:
    """A service whose routes answer with the principal. A generation uses the tokens that its body names."""
    keyring = Keyring(store, roots)
    app = make_http_app("x", keyring, rights=RIGHTS, organization="Acme & Söhne", own_spans=(CHAT,), openapi_url=None)
    assert app.router.route_class is JsonRoute

    async def who(request: Request) -> dict[str, Any]:
        principal = principal_of(request)
        if request.url.path == CHAT and request.state.holder.limiter is not None:
            request.state.holder.limiter.spend((await request.json())["tokens"], asyncio.get_running_loop().time())
        return {
            "key": principal.key_id,
            "project": principal.project,
            "rights": sorted(principal.rights),
            "max_open_jobs": limits_of(request).max_open_jobs,
            "object": "list",
            "data": [],
        }

    for path in ("/v1/models", "/v1/models/{id:path}", "/v1/files", "/v1/files/{id}", "/jobs", "/keys", "/forgotten"):
        app.add_api_route(path, who, methods=["GET", "POST", "DELETE"])
    app.add_api_route(CHAT, who, methods=["POST"])
    return app


@asynccontextmanager
async def client_of(app: FastAPI, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://service.test", headers=headers
    ) as opened:
        yield opened


def code_of(answer: httpx.Response) -> tuple[int, str | None]:
    error = answer.json().get("error", {})
    assert len(answer.headers["x-request-id"]) == 32
    return answer.status_code, error.get("code")


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("Bearer root", None),
        ("bearer  root ", None),
        ("Bearer roo", "invalid_api_key"),
        ("Bearer schlüssel", "invalid_api_key"),
        (f"Bearer {secret('b')}", None),
        (f"Bearer {secret('b')[:-1]}", "invalid_api_key"),
        (f"Bearer {secret('c')}", "invalid_api_key"),
        (f"Bearer {secret('d')}", "invalid_api_key"),
        ("Bearer ", "missing_api_key"),
        ("Basic root", "missing_api_key"),
        ("root", "missing_api_key"),
        (None, "missing_api_key"),
    ],
)
async def test_only_a_known_key_is_accepted(store: FakeStore, authorization: str | None, code: str | None) -> None:
    await add_key(store, "b")
    await add_key(store, "d", revoked_at=2.0)
    headers = {b"authorization": authorization.encode()} if authorization else {}
    async with client_of(make_app(store)) as client:
        answer = await client.get("/jobs", headers=headers)

    assert code_of(answer) == ((401, code) if code else (200, None))
    assert answer.headers.get("www-authenticate") == ("Bearer" if code else None)
    assert ("openai-organization" in answer.headers) == (code is None)


@pytest.mark.parametrize("sent", [None, "Bearer x", f"Bearer {secret('b')}"])
async def test_without_any_key_everyone_may_ask_until_there_was_one(store: FakeStore, sent: str | None) -> None:
    headers = {"authorization": sent} if sent else {}
    async with client_of(make_app(store, ())) as client:
        assert (await client.get("/keys", headers=headers)).json()["rights"] == ["admin", "serve", "train"]
    await add_key(store, "c")
    await revoke_key(store, "c")
    async with client_of(make_app(store, ())) as client:
        assert (await client.get("/keys", headers=headers)).status_code == 401


async def test_a_store_that_is_away_at_the_start_keeps_all_but_roots_out_for_now(store: FakeStore) -> None:
    store.available = False
    async with client_of(make_app(store), secret("b")) as client:
        answer = await client.get("/jobs")
        assert code_of(answer) == (503, "service_unavailable") and answer.headers["retry-after"]
        assert (await client.get("/jobs", headers={"authorization": "Bearer root"})).status_code == 200
    async with client_of(make_app(store, ())) as client:
        assert code_of(await client.get("/jobs")) == (503, "service_unavailable")


# --- projects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "header", "project", "code"),
    [
        (ROOT, None, "default", None),
        (ROOT, "proj_x", "proj_x", None),
        (ROOT, "", "default", None),
        (secret("b"), None, "p", None),
        (secret("b"), "p", "p", None),
        (secret("b"), "q", None, (401, "mismatched_project")),
        (secret("b"), "default", None, (401, "mismatched_project")),
        (secret("b"), "P", None, (401, "mismatched_project")),
        (secret("c"), "q", "q", None),
        (secret("c"), None, "p", None),
        *(
            (key, odd, None, (400, "invalid_project"))
            for key in (ROOT, secret("b"))
            for odd in ("../q", "p/q", "ü", "-p", "p p", "x" * 65)
        ),
    ],
)
async def test_a_request_is_in_the_project_of_its_key(
    store: FakeStore, key: str, header: str | None, project: str | None, code: tuple[int, str] | None
) -> None:
    await add_key(store, "b", project="p")
    await add_key(store, "c", project="p", rights=("admin",))
    headers = {b"openai-organization": "org-ä".encode()} | (
        {b"openai-project": header.encode()} if header is not None else {}
    )
    async with client_of(make_app(store), key) as client:
        answer = await client.get("/v1/models", headers=headers)
    assert code_of(answer) == (code or (200, None))
    if project:
        assert answer.json()["project"] == project


async def test_answers_have_openais_headers(store: FakeStore) -> None:
    async with client_of(make_app(store), ROOT) as client:
        for path in ("/v1/models", "/nowhere"):
            headers = (await client.get(path)).headers
            assert headers["openai-organization"] == "Acme-S-hne"
            assert headers["openai-version"] == "2020-10-01"
            assert int(headers["openai-processing-ms"]) >= 0
            assert "x-ratelimit-limit-requests" not in headers


# --- rights -----------------------------------------------------------------------------------------------------------

NEEDS: list[tuple[str, str, set[str]]] = [
    ("POST", CHAT, {"serve", "train"}),
    ("GET", "/v1/models", {"serve", "train"}),
    ("GET", "/v1/models/ft:a:b::c", {"serve", "train"}),
    ("DELETE", "/v1/models/ft:a:b::c", {"train"}),
    ("POST", "/v1/models", set()),
    ("GET", "/v1/files", {"train"}),
    ("DELETE", "/v1/files/file-1", {"train"}),
    ("GET", "/jobs", {"train"}),
    ("GET", "/keys", set()),
    ("POST", "/keys", set()),
    ("GET", "/forgotten", set()),
]


@pytest.mark.parametrize(("method", "path", "enough"), NEEDS)
@pytest.mark.parametrize("right", ["train", "serve", "admin", "unknown"])
async def test_a_route_takes_keys_with_its_right(
    store: FakeStore, method: str, path: str, enough: set[str], right: str
) -> None:
    await add_key(store, "b", rights=(right,))
    async with client_of(make_app(store), secret("b")) as client:
        answer = await client.request(method, path, json={"tokens": 0})
    if right in enough | {"admin"}:
        assert answer.status_code == 200
    else:
        assert code_of(answer) == (403, "insufficient_permissions")
        message = answer.json()["error"]["message"]
        assert all(f"`{each}`" in message for each in enough or {"admin"}), "it names what is lacking"


@pytest.mark.parametrize(("path", "status"), [("/v1/assistants", 404), ("/v1", 404), ("/v1/filesystem", 404)])
async def test_where_there_is_no_route_there_is_no_right_to_lack(store: FakeStore, path: str, status: int) -> None:
    await add_key(store, "b", rights=("serve",))
    async with client_of(make_app(store), secret("b")) as client:
        assert (await client.get(path)).status_code == status


@pytest.mark.parametrize("path", ["/keys/", "//keys", "/keys/../keys", "/v1/files/../../keys", "/v1/files/%2e%2e/keys"])
async def test_no_spelling_of_a_path_leads_past_its_right(store: FakeStore, path: str) -> None:
    await add_key(store, "b", rights=("train",))
    async with client_of(make_app(store), secret("b")) as client:
        answer = await client.get(path, follow_redirects=True)
    assert answer.status_code in (403, 404)


# --- limits -----------------------------------------------------------------------------------------------------------


async def statuses(client: httpx.AsyncClient, paths: Iterable[str]) -> list[int]:
    return [(await client.get(path)).status_code for path in paths]


async def test_a_key_over_its_limit_is_told_when_to_come_back(store: FakeStore) -> None:
    await add_key(store, "b", limits={"requests_per_minute": 3})
    await add_key(store, "c", limits={"requests_per_minute": 3})
    async with client_of(make_app(store), secret("b")) as client:
        answers = [await client.get("/jobs") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0"]
        refused = answers[3]
        assert code_of(refused) == (429, "rate_limit_exceeded")
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert int(refused.headers["retry-after"]) == 20
        assert 19_000 < int(refused.headers["retry-after-ms"]) <= 20_000
        assert refused.headers["x-ratelimit-limit-requests"] == "3"
        assert "x-ratelimit-limit-tokens" not in refused.headers
        assert (await client.get("/health/live")).status_code == 404, "it is no route here, and needs no key"
        others = {"authorization": f"Bearer {secret('c')}"}
        assert (await client.get("/jobs", headers=others)).status_code == 200, "each key has a limit of its own"


async def test_a_limit_outlasts_a_change_of_the_document(store: FakeStore) -> None:
    await add_key(store, "b", limits={"requests_per_minute": 1})
    app = make_app(store)
    async with client_of(app, secret("b")) as client:
        assert await statuses(client, ["/jobs", "/jobs"]) == [200, 429]
        key = f"keys/{id_of('b')}.json"
        store.add(key, store.held[key].data + b"\n")
        async with client_of(app, secret("c")) as other:
            await other.get("/jobs")
        assert await statuses(client, ["/jobs"]) == [429]


async def test_a_route_knows_how_many_jobs_a_key_may_have_open(store: FakeStore) -> None:
    await add_key(store, "b", limits={"max_open_jobs": 3})
    async with client_of(make_app(store), secret("b")) as client:
        answer = await client.get("/jobs")
        assert answer.json()["max_open_jobs"] == 3
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
        root = await client.get("/jobs", headers={"authorization": f"Bearer {ROOT}"})
        assert root.json()["max_open_jobs"] is None


async def test_tokens_hold_up_generations_only(store: FakeStore) -> None:
    await add_key(store, "b", limits={"tokens_per_minute": 100})
    async with client_of(make_app(store), secret("b")) as client:
        first = await client.post(CHAT, json={"tokens": 150})
        second = await client.post(CHAT, json={"tokens": 150})
        assert (first.status_code, second.status_code) == (200, 429)
        assert first.headers["x-ratelimit-remaining-tokens"] == "0"
        assert "tokens per minute" in second.json()["error"]["message"]
        assert (await client.get("/v1/models")).status_code == 200


async def test_the_official_client_comes_back_when_it_was_told_to(store: FakeStore) -> None:
    await add_key(store, "b", limits={"requests_per_minute": 300})
    server = Server(make_app(store))
    async with server.running():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=secret("b"), max_retries=2) as client:
            taken = [(await client.models.with_raw_response.list()).retries_taken for _ in range(300)]
            while not taken[-1] and len(taken) < 3000:  # on a slow machine the limit rises meanwhile
                taken.append((await client.models.with_raw_response.list()).retries_taken)
            assert taken[-1], "it was refused, waited as it was told, and was answered"
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=secret("b"), max_retries=0) as client:
            with pytest.raises(openai.RateLimitError) as refused:
                for _ in range(200):
                    await client.models.list()
            assert refused.value.code == "rate_limit_exceeded"
