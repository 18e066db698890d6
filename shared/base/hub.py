"""Whether the model hub answers. It is asked once and briefly, because its client retries five times for each file."""

from __future__ import annotations

import threading
from pathlib import Path

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


def is_silent(location: str) -> bool:
    """Whether a base at `location` would be asked of a hub that does not answer: then only local copies count."""
    return not Path(location).is_dir() and _may_be_on_a_hub(location) and not is_offline() and not answers(location)


def _may_be_on_a_hub(location: str) -> bool:
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415  as in _ask
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # noqa: PLC0415

    try:
        validate_repo_id(location)
    except HFValidationError:  # a path
        return False
    return True


def is_offline() -> bool:
    """Whether the user chose to work without the hub, which is no outage."""
    from huggingface_hub import is_offline_mode  # noqa: PLC0415  as in _ask

    return bool(is_offline_mode())


def is_outage(error: BaseException) -> bool:
    """Whether the hub went out of reach while it was asked, and there is no local copy."""
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415  as in _ask

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, LocalEntryNotFoundError):
        cause = cause.__cause__
    return cause is not None and not is_offline()


def _ask(repository: str, patience: float, answered: threading.Event) -> None:
    from huggingface_hub import constants, get_session  # noqa: PLC0415  comes with transformers

    try:
        # the hub's own client, so that its proxies and certificates are used
        get_session().head(f"{constants.ENDPOINT}/{repository}/resolve/main/config.json", timeout=patience)
    except Exception:  # those of httpx or of httpx2, as the hub's version has it
        return
    answered.set()
