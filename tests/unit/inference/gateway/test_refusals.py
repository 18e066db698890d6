"""The errors of vLLM have the statuses that the OpenAPI document lists."""

from __future__ import annotations

import json

import pytest

from services.inference.gateway.refusals import as_api_error

TOLD = json.dumps({"error": {"message": "no", "code": 1}}).encode()


@pytest.mark.parametrize("body", [TOLD, b"", b"[]", b'{"detail": "no"}'])
@pytest.mark.parametrize(
    ("status", "known"),
    [(400, 400), (413, 413), (418, 400), (422, 400), (429, 429), (500, 500), (501, 500), (503, 503)],
)
def test_a_status_that_no_client_knows_becomes_one_that_each_knows(status: int, known: int, body: bytes) -> None:
    assert as_api_error(status, body, "/v1/completions", "m").status == known
