"""When `tunestream up` takes a program for ready."""

from __future__ import annotations

import io

import httpx
import pytest
from rich.console import Console

from cli.stack import readiness
from cli.stack.display import BootView
from tests.support.fakes.clock import Clock


@pytest.mark.parametrize(
    ("status", "body", "note"),
    [
        (200, b'{"status": "ready"}', None),
        (200, b"", None),  # the render server
        (200, b"[]", None),
        (200, b'{"status": "ready", "warnings": {"bus": "not connected"}}', "bus: not connected"),
        (503, b'{"problems": {"vllm": "loading", "start": "starting"}}', "vllm: loading, start: starting"),
        (503, b'{"problems": null}', "answers 503"),
        (500, b"oh", "answers 500"),
    ],
)
def test_what_a_program_answers(monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, note: str | None) -> None:
    monkeypatch.setattr(httpx.Client, "get", lambda *args, **options: httpx.Response(status, content=body))
    assert readiness.http(1)() == note


def test_a_warning_holds_up_the_start_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"status": "ready", "warnings": {"bus": "the message bus does not answer"}}
    monkeypatch.setattr(httpx.Client, "get", lambda *args, **options: httpx.Response(200, json=body))
    clock = Clock()
    probe = readiness.http(1, clock=clock)
    assert probe() == "bus: the message bus does not answer"
    clock.now += readiness.WARNING_SECONDS - 1
    assert probe() is not None
    clock.now += 1
    assert probe() is None


START = '{"level": "info", "message": "vLLM is starting", "port": 1}'
ENGINE = "(EngineCore pid=1) INFO 11-26 22:20:24 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: …"
LOADS = "(Worker pid=1) INFO 11-26 22:20:31 [gpu_model_runner.py:5040] Starting to load model /models/base..."
SHARDS = "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:04<00:04,  4.1s/it]"
LOADED = "(Worker pid=1) INFO 11-26 22:20:36 [model.py:5150] Model loading took 14.9 GiB memory and 5 seconds"
DYNAMO = "(Worker pid=1) INFO 11-26 22:20:40 [backends.py:1167] Dynamo bytecode transform time: 4.12 s"
CACHED = "(Worker pid=1) INFO 11-26 22:20:41 [b.py:296] Directly load the compiled graph(s) for compile range (1, 8)"
COMPILED = "(Worker pid=1) INFO 11-26 22:20:58 [monitor.py:34] torch.compile took 20.12 s in total"
MEMORY = "(Worker pid=1) INFO 11-26 22:21:02 [gpu_worker.py:760] Available KV cache memory: 28.1 GiB"
GRAPHS = "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  37%|███▋      | 26/70 [00:03<00:05,  8.1it/s]"
DONE = "(Worker pid=1) INFO 11-26 22:21:15 [gpu_model_runner.py:6582] Graph capturing finished in 9 secs, took 0.61 GiB"


@pytest.mark.parametrize(
    ("lines", "step"),
    [
        ([], None),
        (["something else"], None),
        ([START], "importing its libraries"),
        ([START, ENGINE], "importing its libraries"),
        ([START, ENGINE, LOADS, "a warning"], "loading the weights"),
        ([START, ENGINE, LOADS, SHARDS], "loading the weights (50 %)"),
        ([START, LOADS, SHARDS, LOADED], "compiling"),
        ([START, LOADED, DYNAMO, CACHED], "compiling"),
        ([START, DYNAMO, COMPILED], "reserving memory"),
        ([START, COMPILED, MEMORY], "reserving memory"),
        ([START, MEMORY, GRAPHS], "capturing CUDA graphs (37 %)"),
        ([START, GRAPHS, DONE], "almost ready"),
        ([START, GRAPHS, DONE, START], "importing its libraries"),  # it has died, and starts again
    ],
)
def test_what_a_vllm_that_starts_is_doing(lines: list[str], step: str | None) -> None:
    assert readiness.vllm_step(lines) == step


def test_the_note_of_inference_says_what_its_vllm_does_until_it_is_ready() -> None:
    notes = iter(["vllm: vLLM does not answer yet", "does not answer yet", None])
    steps = iter(["loading the weights", None])
    probe = readiness.telling(lambda: next(notes), lambda: next(steps))
    assert [probe(), probe(), probe()] == [
        "vllm: vLLM does not answer yet: loading the weights",
        "does not answer yet",
        None,
    ]


def test_where_there_is_no_terminal_a_new_note_is_a_line_every_few_seconds() -> None:
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, width=200)
    with BootView(console, ["inference"], clock=lambda: clock.now) as view:
        for note in (
            "does not answer yet",
            "does not answer yet",
            "loading the weights (1 %)",
            "loading the weights (50 %)",
            "compiling",
            "compiling",
            "compiling",
        ):
            view.update("inference", "starting", note)
            clock.now += 3
        view.update("inference", "ready")
    assert out.getvalue().splitlines() == [
        "inference: starting (does not answer yet)",
        "inference: starting (loading the weights (1 %))",
        "inference: starting (compiling)",
        "inference: ready after 21.0 s",
    ]
