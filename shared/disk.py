"""What goes wrong with a local disk: it is full, or may not be written to. An operator mends both."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import ConfigError, TransientError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
# libraries that are not written in Python raise exceptions of their own, with the system's words in their messages
_SAID = ("No space left on device", "Disk quota exceeded", "os error 28", "os error 122")


def is_full(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, says that a disk is full."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return True
        if any(words in str(cause) for words in _SAID):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


@contextmanager
def writing(folder: object, setting: str) -> Iterator[None]:
    """Explain why nothing can be written to `folder`, which `setting` names.

    Raises:
        TransientError: its disk is full.
        ConfigError: it may not be written to.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise TransientError(f"the disk of {folder} ({setting}) is full: make room, or name another") from error
        if error.errno in _REFUSED:
            raise ConfigError(f"{folder} ({setting}) cannot be written: change its rights, or name another") from error
        raise
