"""`python -m services.inference.vllm` runs vLLM as a separate server, whose address goes into `vllm.url`.

It has the command line of the supervised server. This process becomes vLLM, so signals go to vLLM, and the exit code is
vLLM's. A client of this server can load any file as an adapter and, if the server can sleep, run code. So only the
inference service may reach it.
"""

from __future__ import annotations

import asyncio
import os
import sys

from services.inference.vllm.command import command_line, cpu_build, environment
from services.inference.vllm.profile import profile_of
from shared.errors import ConfigError
from shared.service import EXIT_CONFIG
from shared.settings import load_settings
from shared.telemetry import logs

PORT = 8000  # vLLM's own


def main() -> None:
    try:
        settings = load_settings()
        cpu = cpu_build()
    except ConfigError as error:
        print(f"tunestream vllm: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_CONFIG)
    logs.set_up("vllm", settings.telemetry.log_level)
    can_sleep = settings.gpu.share == "alternate"
    port, host = settings.vllm.port or PORT, settings.vllm.host
    profile = asyncio.run(profile_of(settings.model))
    command = command_line(settings, port, cpu=cpu, host=host, can_sleep=can_sleep, profile=profile)
    os.execve(command[0], command, environment(settings, os.environ, cpu=cpu, can_sleep=can_sleep))


if __name__ == "__main__":
    main()
