"""What vLLM is started with for a base: the options that its profile asks for, and those of the user."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from services.inference.vllm.command import CPU_WORKER, command_line, environment, profile_flags, sequences
from shared.base import BaseProfile
from shared.settings import Settings

PLAIN = BaseProfile(digest="d", architecture="LlamaForCausalLM", template_digest=None, content_format=None)
THINKER = PLAIN.model_copy(
    update={
        "reasoning_parser": "qwen3",
        "tool_call_parser": "hermes",
        "tokenizer_mode": "hf",
        "chat_template_kwargs": {"enable_thinking": False},
    }
)


def started(profile: BaseProfile | None, *extra: str) -> list[str]:
    return command_line(Settings.model_validate({"vllm": {"extra_args": extra}}), 8000, cpu=True, profile=profile)


def test_a_base_without_thoughts_and_tools_needs_no_options() -> None:
    assert profile_flags(PLAIN) == []
    assert started(PLAIN) == started(None)


def test_parsers_and_template_settings_are_those_of_the_profile() -> None:
    command = started(THINKER)

    assert ("--reasoning-parser", "qwen3") in pairwise(command)
    assert ("--tool-call-parser", "hermes") in pairwise(command)
    assert "--enable-auto-tool-choice" in command
    assert ("--tokenizer-mode", "hf") in pairwise(command)
    assert ("--default-chat-template-kwargs", '{"enable_thinking": false}') in pairwise(command)


@pytest.mark.parametrize(
    ("extra", "gone"),
    [
        (("--reasoning-parser", "deepseek_r1"), "--reasoning-parser"),
        (("--reasoning_parser=deepseek_r1",), "--reasoning-parser"),
        (("--tool-call-parser=pythonic",), "--tool-call-parser"),
        (("--no-enable-auto-tool-choice",), "--enable-auto-tool-choice"),
        (("--default-chat-template-kwargs.enable_thinking", "true"), "--default-chat-template-kwargs"),
    ],
)
def test_options_of_the_user_replace_ours(extra: tuple[str, ...], gone: str) -> None:
    command = started(THINKER, *extra)

    assert tuple(command[-len(extra) :]) == extra
    ours = command[: -len(extra)]
    assert gone not in ours
    assert len(ours) == len(started(THINKER)) - (1 if gone == "--enable-auto-tool-choice" else 2)


@pytest.mark.parametrize(
    ("settings", "taken", "graphs"),
    [
        ({}, "256", "256"),
        ({"max_num_seqs": 40}, "40", "40"),
        ({"max_num_seqs": 1000}, "1000", "512"),
        ({"extra_args": ("-cc.cudagraph_capture_sizes=[1,2]",)}, "256", None),
        ({"max_num_seqs": 40, "extra_args": ("--max-num-seqs", "8")}, "8", "8"),
        ({"extra_args": ("--max_num_seqs=8",)}, "8", "8"),
        ({"extra_args": ("--max-cudagraph-capture-size=512",)}, "256", None),
        ({"extra_args": ("--cudagraph-capture-sizes", "1", "2")}, "256", None),
        ({"extra_args": ("--compilation-config.level", "0")}, "256", None),
        ({"extra_args": ("--enforce-eager",)}, "256", None),
    ],
)
def test_a_gpu_captures_no_graph_that_is_larger_than_a_batch(
    settings: dict[str, object], taken: str, graphs: str | None
) -> None:
    chosen = Settings.model_validate({"vllm": settings})
    command = command_line(chosen, 8000, cpu=False)

    spelt = [one.replace("_", "-") for one in command]
    assert ("--max-num-seqs", taken) in pairwise(spelt) or f"--max-num-seqs={taken}" in spelt
    assert sum(one.startswith("--max-num-seqs") for one in spelt) == 1
    assert sequences(chosen, cpu=False) == int(taken)
    if graphs is None:
        assert "--max-cudagraph-capture-size" not in command
    else:
        assert ("--max-cudagraph-capture-size", graphs) in pairwise(command)
    assert "--max-cudagraph-capture-size" not in command_line(Settings(), 8000, cpu=True)


def test_the_workers_of_the_cpu_build_find_our_class_wherever_they_are_started(tmp_path: Path) -> None:
    """Also where our code is not installed, as in the image of the full stack: `-S` leaves out what is installed."""
    module = CPU_WORKER.rpartition(".")[0]
    code = f"import importlib.util; assert importlib.util.find_spec({module.rpartition('.')[0]!r})"
    inherited = environment(Settings(), {"PATH": "/bin"}, cpu=True)
    subprocess.run([sys.executable, "-P", "-S", "-c", code], cwd=tmp_path, env=inherited, check=True)


@pytest.mark.parametrize("cpu", [True, False])
def test_a_cpu_compiles_nothing_because_there_may_be_no_compiler(cpu: bool) -> None:
    assert (environment(Settings(), {}, cpu=cpu).get("TORCHDYNAMO_DISABLE") == "1") == cpu
