"""Files, uploads and jobs are handed to the api service, so that one `base_url` is enough."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.data.trained_models import TRACEPARENT
from tests.unit.inference.conftest import ServiceUnderTest


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files"),
        ("GET", "/v1/files/file-1/content"),
        ("DELETE", "/v1/files/file-1"),
        ("POST", "/v1/uploads/upload_1/complete"),
        ("POST", "/v1/fine_tuning/jobs/ftjob-1/cancel"),
        ("GET", "/v1/fine_tuning/checkpoints/ft%3Aa%2Fb/permissions"),
    ],
)
async def test_control_plane_paths_reach_the_api_service(service: ServiceUnderTest, method: str, path: str) -> None:
    answer = await service.http.request(
        method,
        path,
        params={"metadata[a]": "b c", "limit": 2},
        headers={"traceparent": TRACEPARENT, "authorization": "Bearer key"},
    )

    seen = answer.json()
    assert answer.status_code == 201
    assert (seen["method"], seen["path"]) == (method, path)
    assert seen["query"] == "metadata%5Ba%5D=b+c&limit=2"
    assert (seen["traceparent"], seen["authorization"]) == (TRACEPARENT, "Bearer key")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers.get_list("x-request-id") == [TRACEPARENT.split("-")[1]]


async def test_an_upload_is_streamed_through_byte_for_byte(service: ServiceUnderTest) -> None:
    async def body() -> AsyncIterator[bytes]:
        for number in range(64):
            yield bytes([number]) * 10_000

    answer = await service.http.post(
        "/v1/files", content=body(), headers={"content-type": "multipart/form-data; boundary=b"}
    )

    assert answer.json()["content_type"] == "multipart/form-data; boundary=b"
    assert service.api.bodies == [b"".join([bytes([number]) * 10_000 for number in range(64)])]


async def test_a_path_may_not_climb_out_of_the_control_plane(service: ServiceUnderTest) -> None:
    for path in ("/v1/files/%2E%2E/%2E%2E/admin", "/v1/files/%2e%2e%2fadmin"):
        assert (await service.http.get(path)).status_code == 404
    assert service.api.bodies == []


async def test_an_api_service_that_is_down_is_named(service: ServiceUnderTest) -> None:
    service.api.server.stop_listening()
    service.api.server.break_connections()

    answer = await service.http.get("/v1/files")

    assert answer.status_code == 502
    assert "TUNESTREAM_API__URL" in answer.json()["error"]["message"]
