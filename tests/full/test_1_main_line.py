"""A file dropped with a plain S3 client ends as a deployed model behind the endpoint, in one readable trace."""

from __future__ import annotations

from typing import Any

import pytest

from tests.full.conftest import SERVICES, FullStack
from tests.races import compare_and_swap, create_once
from tests.user import QUICK, support_rows

pytestmark = pytest.mark.timeout(900)

CANARY = "zanzibar-canary-7731"
NAME = f"{CANARY}-file"


@pytest.fixture(scope="module")
def job(stack: FullStack) -> dict[str, Any]:
    rows = support_rows(120).replace(b"Hello", CANARY.encode())
    sidecar = QUICK.format(suffix="helper") + "gate: {promote: always}\n"
    stack.drop(NAME, rows, sidecar)
    return stack.ended(f"{NAME}.jsonl", 420)


@pytest.fixture(scope="module")
def answer(stack: FullStack, job: dict[str, Any]) -> Any:
    """The first question to the model, as nobody but a user asks it."""
    return stack.openai.chat.completions.with_raw_response.create(
        model="helper", messages=[{"role": "user", "content": f"Hello, {CANARY}?"}], max_tokens=16
    )


def test_everything_is_healthy(stack: FullStack) -> None:
    for service in (*SERVICES, "vllm", "kafka", "minio", "jaeger"):
        assert stack.inspect(service)["State"]["Health"]["Status"] == "healthy", service
    assert stack.inspect("init")["State"]["ExitCode"] == 0


def test_the_dropped_file_ends_as_a_deployed_model(stack: FullStack, job: dict[str, Any], answer: Any) -> None:
    assert job["status"] == "succeeded", job["error"]
    assert job["deployment"]["alias"] == "helper"
    assert answer.parse().model == job["fine_tuned_model"]


def test_init_again_changes_nothing(stack: FullStack, job: dict[str, Any]) -> None:
    stack.compose("run", "--rm", "init")
    stack.compose("run", "--rm", "init")
    assert stack.get(f"/jobs/{job['id']}")["status"] == "succeeded"


async def test_conditional_writes_have_one_winner(stack: FullStack) -> None:
    store = stack.objects_of("admin")
    await create_once(store, "probe/races/create", racers=32, rounds=100)
    await compare_and_swap(store, "probe/races/swap", racers=32, rounds=100)
