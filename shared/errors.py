"""The exceptions of Tunestream. The stage protocol decides by the class, never by the text.

TunestreamError
├── InputError         the user's data or settings are wrong: the job ends with `job.failed`, without a retry
├── TransientError     something outside is unavailable: retried with back-off
│   └── StoreUnavailable
├── AlreadyExists      a create-once object exists already: another attempt won
├── Conflict           a compare-and-swap lost: read again, decide again
├── CorruptObject      bytes do not match the digest of their reference
├── LeaseLost          another owner has the claim: stop, write nothing more
├── Cancelled          the user asked for the job to end
└── ConfigError        a service cannot start with these settings

Any other exception is a bug: it is retried a bounded number of times, then the job ends with `job.failed`.
"""

from __future__ import annotations


class TunestreamError(Exception):
    """The base class of all exceptions of Tunestream."""


class InputError(TunestreamError):
    """The user's data or settings are wrong.

    `code` is for programs (`invalid_training_file`), `message` says what to change, `param` names the field of the job
    that is wrong. They become the `error` of the job.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class TransientError(TunestreamError):
    """Something outside is unavailable for now; the same call may succeed later."""


class StoreUnavailable(TransientError):
    """The object store did not answer, or answered 5xx. A write may or may not have taken effect."""


class AlreadyExists(TunestreamError):
    """A create-once write found that the object exists."""


class Conflict(TunestreamError):
    """A compare-and-swap found another ETag than the expected one."""


class CorruptObject(TunestreamError):
    """The bytes that were read do not match their reference."""


class LeaseLost(TunestreamError):
    """Another owner has the claim."""


class Cancelled(TunestreamError):
    """The user asked for the job to end."""


class ConfigError(TunestreamError):
    """A service cannot start with these settings; the message names the setting and the remedy."""
