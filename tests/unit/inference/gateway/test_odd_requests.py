"""Requests that are wrong in every way: each is answered 4xx in OpenAI's envelope, and vLLM gets only JSON that it can
read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared import strict_json
from tests.support.data.trained_models import BASE
from tests.support.fakes.vllm import BASE_AT_VLLM
from tests.unit.inference.conftest import ServiceUnderTest

CHAT = "/v1/chat/completions"
HEAD = f'{{"model": "{BASE}", "messages": [], '


def error_of(answer: httpx.Response) -> dict[str, Any]:
    assert 400 <= answer.status_code < 500, answer.text
    body = strict_json.loads(answer.content)
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == "invalid_request_error" and body["error"]["message"]
    return dict(body["error"])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("NaN", "temperature is NaN"),
        ("Infinity", "temperature is Infinity"),
        ("-Infinity", "temperature is -Infinity"),
        ("1e999", "temperature is a number beyond"),
        ("1" * 5000, "temperature is a whole number"),
        ("1" * 30, "temperature is a whole number"),
        (r'"\ud800"', "temperature holds half of"),
    ],
)
async def test_a_value_that_is_no_json_is_refused_by_its_field(
    service: ServiceUnderTest, value: str, said: str
) -> None:
    for route in (CHAT, "/v1/completions", "/v1/embeddings"):
        answer = await service.http.post(route, content=HEAD + f'"temperature": {value}}}')
        error = error_of(answer)
        assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_json", "temperature")
        assert said in error["message"]
    assert service.vllm.asked == []


BODIES = [
    b"",
    b"{",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\xff\xfe",
    b'{"model": "\xed\xa0\x80"}',
    b"null",
    b"[]",
    b'"model"',
    b"{}",
    b'{"model": null}',
    b'{"model": ""}',
    b'{"model": 1e999}',
    b'{"model": ["a"]}',
    b'{"model": "\\ud800"}',
    b'{"model": "\\u0000"}',
    b'{"model": "../../jobs"}',
    b'{"\\ud800": 1, "model": "x"}',
    json.dumps({"model": "m" * 100_000}).encode(),
    json.dumps({"model": "ft:a:b:c:" + "d" * 10_000}).encode(),
    json.dumps({"model": "日本" * 2000}).encode(),
]


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data", "", "é; ;="])
async def test_a_body_that_is_wrong_is_never_a_bug(service: ServiceUnderTest, content_type: str) -> None:
    for body in BODIES:
        error_of(await service.http.post(CHAT, content=body, headers={b"content-type": content_type.encode()}))
    assert service.vllm.asked == []


@pytest.mark.parametrize("path", ["/deployments/alias", "/deployments/%FF%FE", "/deployments/%ED%A0%80"])
async def test_an_administrative_request_that_is_wrong_is_never_a_bug(service: ServiceUnderTest, path: str) -> None:
    for body in [*BODIES, b'{"model": NaN}', b'{"model": "x", "more": 1}']:
        for content_type in ("application/json", "text/plain"):
            error_of(await service.http.post(path, content=body, headers={"content-type": content_type}))


async def test_a_value_that_is_no_json_is_named_in_administrative_requests_too(service: ServiceUnderTest) -> None:
    answer = await service.http.post(
        "/deployments/alias", content=b'{"model": {"x": NaN}}', headers={"content-type": "application/json"}
    )
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_json", "model.x")


async def test_an_odd_path_is_never_a_bug(service: ServiceUnderTest) -> None:
    for method, path in PATHS:
        error_of(await service.http.request(method, path))


PATHS = [
    ("GET", "/v1/models/%FF"),
    ("GET", "/v1/models/%ED%A0%80"),
    ("GET", "/v1/models/" + "x" * 5000),
    ("GET", "/v1/models/..%2F..%2Fjobs"),
    ("GET", "/v1/models/%00"),
    ("GET", "/deployments/%FF"),
    ("GET", "/deployments/" + "%C3%A9" * 1000),
    ("POST", "/deployments/%00/rollback"),
    ("POST", "/deployments/%ED%A0%80/rollback"),
    ("GET", "/%FF%ED%A0%80"),
    ("TRACE", "/v1/models"),
]


@pytest.mark.parametrize("path", ["/v1/files", "/v1/files/%FF?a=%FF&%ED%A0%80", "/v1/uploads//x?limit=NaN"])
async def test_odd_headers_and_paths_reach_the_api_as_they_are(service: ServiceUnderTest, path: str) -> None:
    headers = {b"x-odd": b"\xff\xe9", b"traceparent": b"\xff", b"x-other": "é".encode()}
    answer = await service.http.post(path, content=b"{NaN", headers=headers)
    assert answer.status_code == 201  # of the fake, which describes what it got
    assert answer.json()["path"] == path.partition("?")[0]
    assert service.api.bodies == [b"{NaN"]


@pytest.mark.parametrize(
    "line", [b"GET /v1/files/\xff", b"GET /v1/files?\xff", b"POST /v1/\xff", b"GET /v1/models/\xff"]
)
async def test_bytes_that_are_no_url_are_never_a_bug(service: ServiceUnderTest, line: bytes) -> None:
    host, port = service.http.base_url.host, service.http.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(line + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    status = int((await reader.readline()).split()[1])
    writer.close()
    assert 400 <= status < 500


async def test_odd_headers_of_a_generation_are_no_bug(service: ServiceUnderTest) -> None:
    headers = {b"x-odd": b"\xff\xe9", b"traceparent": b"\xff", b"tracestate": b"\xff", b"accept": b"\xff"}
    answer = await service.http.post(CHAT, json={"model": BASE, "messages": []}, headers=headers)
    assert answer.status_code < 500


def generated() -> st.SearchStrategy[bytes]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None))
    names = st.sampled_from(["model", "messages", "stream", "stream_options", "tools", "n"]) | st.text(max_size=3)
    values = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=10
    )
    objects = st.dictionaries(names, values, max_size=4)
    models = st.sampled_from([BASE, "alias", "ft:a:b:c:abcdefgh"]) | st.text(st.characters(codec=None))
    requests = st.builds(lambda value, model: value | {"model": model}, objects, models)
    return st.binary(max_size=50) | (values | requests).map(lambda value: json.dumps(value).encode())


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=generated(), path=st.sampled_from([CHAT, "/v1/completions", "/v1/embeddings", "/deployments/alias"]))
async def test_no_body_makes_the_gateway_fail(service: ServiceUnderTest, body: bytes, path: str) -> None:
    answer = await service.http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code < 500, (body, answer.text)
    for sent in service.vllm.asked:
        strict_json.check(sent)
    service.vllm.asked.clear()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEAD + '"stop": [' + "[]," * 10_000_000 + "[]]}", "lists and objects"),
        (HEAD + '"stop": [' + "0," * 10_000_000 + "0]}", "values"),
    ],
    ids=["lists", "numbers"],
)
async def test_a_body_of_millions_of_values_is_refused(service: ServiceUnderTest, content: str, said: str) -> None:
    answer = await service.http.post(CHAT, content=content)

    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "invalid_json")
    assert said in error["message"]


async def test_a_long_prompt_reaches_vllm_as_it_is(service: ServiceUnderTest) -> None:
    prompt = 'She said: "one, two [three]". \\ é 日本 ' * 50_000
    body = {"temperature": 0.5, "model": BASE, "messages": [{"role": "user", "content": prompt}], "seed": 2**63}

    assert (await service.http.post(CHAT, json=body)).status_code == 200
    assert service.vllm.asked == [body | {"model": BASE_AT_VLLM}]
