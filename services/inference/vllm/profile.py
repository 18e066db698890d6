"""Makes the profile of the base that vLLM serves. `python -m services.inference.vllm.profile` does it, in a process of
its own, because transformers costs seconds and memory that this service does without."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys

from pydantic import ValidationError

from shared.base import BaseProfile
from shared.errors import TunestreamError
from shared.settings import ModelSettings

log = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds; a base on a hub has tens of megabytes of small files


async def profile_of(model: ModelSettings, patience: float = PATIENCE) -> BaseProfile | None:
    """The profile of the base; None if it cannot be made, and the log says why. vLLM is then started without it: it
    serves the base, but reads neither thoughts nor calls in answers.

    `patience`: in seconds.
    """
    given = model.model_dump_json(exclude_unset=True).encode()  # a null that was set switches a parser off
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(patience):
            made, errors = await process.communicate(given)
        return BaseProfile.model_validate_json(made)
    except TimeoutError:
        reason = f"it took longer than {patience:.0f} s"
    except ValidationError:
        reason = (errors.decode(errors="replace").strip().splitlines() or ["it ended without a word"])[-1]
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    log.warning(
        "the base's profile cannot be made, so vLLM reads neither thoughts nor calls in answers",
        extra={"model": model.id, "reason": reason},
    )
    return None


def main() -> None:
    from shared.base.making import profile_at  # noqa: PLC0415  with jinja2, which the service itself does not need
    from shared.base.reading import without_torch  # noqa: PLC0415

    without_torch()
    model = ModelSettings.model_validate_json(sys.stdin.buffer.read())
    try:
        made = profile_at(model.location, model.id, model.profile)
    except TunestreamError as error:
        sys.exit(" ".join(str(error).split()))
    sys.stdout.write(made.model_dump_json())


if __name__ == "__main__":
    main()
