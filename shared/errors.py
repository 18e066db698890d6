"""The exceptions of Tunestream. The stage protocol decides by their kind, never by their text.

TunestreamError
├── InputError         the user's data or settings are wrong: the job ends with `job.failed`, nothing is retried
├── TransientError     something outside is unavailable: tried again with back-off
│   └── StoreUnavailable
├── AlreadyExists      a create-once object is there already: another attempt won
├── Conflict           a compare-and-swap lost: read again, decide again
├── CorruptObject      bytes do not match the digest of their reference
├── LeaseLost          another owner has the claim: stop, write nothing more
├── Cancelled          the user asked for the job to end
└── ConfigError        a service cannot start with these settings

Everything else that is raised is a bug: retried a bounded number of times, then `job.failed`.
"""

from __future__ import annotations


class TunestreamError(Exception):
    """Root of the tree."""


class InputError(TunestreamError):
    """The user's data or settings are wrong.

    `code` is a word a program can test (`invalid_training_file`), `message` says what to change,
    `param` names the field of the job that is to blame. They become the `error` of the job.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class TransientError(TunestreamError):
    """Something outside is unavailable for now; the same call may succeed later."""


class StoreUnavailable(TransientError):
    """The object store did not answer, or answered 5xx; a write may or may not have taken effect."""


class AlreadyExists(TunestreamError):
    """A create-once write found the object there already."""


class Conflict(TunestreamError):
    """A compare-and-swap found another ETag than the one it was given."""


class CorruptObject(TunestreamError):
    """The bytes read are not the bytes that the reference promises."""


class LeaseLost(TunestreamError):
    """The claim belongs to another owner now."""


class Cancelled(TunestreamError):
    """The user asked for the job to end."""


class ConfigError(TunestreamError):
    """A service cannot start with these settings; the message names the setting and the remedy."""
