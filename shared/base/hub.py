"""Whether the model hub answers. It is asked once and briefly, because its client retries five times for each file."""

from __future__ import annotations

import threading

PATIENCE = 5.0
"""In seconds. A hub that needs longer for a few bytes is of no use for a download, either."""


def answers(repository: str, patience: float | None = None) -> bool:
    """Whether the hub answers a request for the config of `repository`; a refusal is an answer, too.

    It takes at most `patience` seconds (default `PATIENCE`), also where a name is looked up without end.
    """
    answered = threading.Event()
    asking = threading.Thread(target=_ask, args=(repository, patience or PATIENCE, answered), daemon=True)
    asking.start()
    asking.join(patience or PATIENCE)
    return answered.is_set()


def _ask(repository: str, patience: float, answered: threading.Event) -> None:
    from huggingface_hub import constants, get_session  # noqa: PLC0415  comes with transformers, see reading.read_base

    try:
        # the hub's own client, so that its proxies and certificates are used
        get_session().head(f"{constants.ENDPOINT}/{repository}/resolve/main/config.json", timeout=patience)
    except Exception:  # those of httpx or of httpx2, as the hub's version has it
        return
    answered.set()
