"""Whether the model hub answers. It is asked once and briefly, because its client retries five times for each file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.disk import is_full
from shared.errors import ConfigError, TransientError, TunestreamError

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


_BROKEN = {"TransportError", "ChunkedEncodingError", "IncompleteRead"}
"""Classes of what breaks on the way, in the HTTP clients that the hub's versions use."""


def trouble(error: BaseException, base: str, *, silent: bool = False) -> TunestreamError | None:
    """The error to raise instead of `error`, which was raised while `base` was loaded, if not the base is to blame, but
    the hub or the disk of its cache. `silent`: the hub did not answer before.

    It is a `TransientError`, or a `ConfigError` if the hub refuses us.
    """
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415  as in _ask

    if is_full(error):
        return TransientError(f"a disk is full while {base} is loaded: that of the model hub's cache (HF_HOME)")
    for cause in _causes(error):
        if isinstance(cause, HfHubHTTPError) and _refuses(cause):
            return ConfigError(f"the model hub refuses {base}: set HF_TOKEN to a token that may read it")
    if not is_offline() and (silent or any(map(_is_outage, _causes(error)))):
        return TransientError(
            f"the model hub does not answer while loading {base}, and there is no local copy (HF_ENDPOINT; or name a "
            "folder by TUNESTREAM_MODEL__PATH)"
        )
    return None


def _refuses(error: Any) -> bool:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError  # noqa: PLC0415  as in _ask

    if isinstance(error, RepositoryNotFoundError):
        # for whoever brings no token, the hub answers 401 for a model that does not exist, too
        return isinstance(error, GatedRepoError)
    return _status(error) in (401, 403)


def _is_outage(error: BaseException) -> bool:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415  as in _ask

    if isinstance(error, HfHubHTTPError):
        return _status(error) >= 500 or _status(error) in (408, 429)
    if isinstance(error, LocalEntryNotFoundError | ConnectionError | TimeoutError):
        return True
    return bool(_BROKEN & {kind.__name__ for kind in type(error).__mro__})


def _status(error: Any) -> int:
    return int(getattr(error.response, "status_code", 0))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _ask(repository: str, patience: float, answered: threading.Event) -> None:
    from huggingface_hub import constants, get_session  # noqa: PLC0415  comes with transformers

    try:
        # the hub's own client, so that its proxies and certificates are used
        get_session().head(f"{constants.ENDPOINT}/{repository}/resolve/main/config.json", timeout=patience)
    except Exception:  # those of httpx or of httpx2, as the hub's version has it
        return
    answered.set()
