"""The exceptions of Tunestream. The stage protocol decides by the class, never by the text.

TunestreamError
├── InputError         the user's data or settings are wrong: the job ends with `job.failed`, without a retry
├── TransientError     something outside is unavailable: retried with back-off
│   └── StoreUnavailable
├── StoreRefused       the object store refuses this call, and would refuse it again
├── EventRefused       the bus will never take this event (it is too large, for example)
├── AlreadyExists      a create-once object exists already: another attempt won
├── Conflict           a compare-and-swap lost: read again, decide again
├── CorruptObject      bytes do not match the digest of their reference
├── LeaseLost          another owner has the claim: stop, write nothing more
├── Cancelled          the user asked for the job to end
├── Paused             the user asked for the job to rest: what was reached may be kept
└── ConfigError        these settings lead nowhere: a service does not start with them, and a job waits until an
                       operator has mended them

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

    @property
    def with_field(self) -> str:
        """The message with the field before it, if the message does not begin with it."""
        named = not self.param or self.message.startswith(self.param)
        return self.message if named else f"{self.param}: {self.message}"


class TransientError(TunestreamError):
    """Something outside is unavailable for now; the same call may succeed later."""


class StoreUnavailable(TransientError):
    """The object store did not answer, or answered 5xx. A write may or may not have taken effect."""


class StoreRefused(TunestreamError):
    """The object store understood a call and refuses it; the same call would be refused again. `code` is the store's
    (`KeyTooLongError`, `InvalidObjectState`)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class EventRefused(TunestreamError):
    """The bus will never take this event. Whoever needs it finds it in the ledger."""


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


class Paused(TunestreamError):
    """The user asked for the job to rest until it is resumed. What was reached may be kept for then."""


class ConfigError(TunestreamError):
    """These settings lead nowhere; the message names the setting and the remedy, in one line. A service does not start
    with them; a job that meets it waits until an operator has mended them."""
