"""Personal data and secrets in texts: where they are, and the same text without them."""

from shared.privacy.personal import find_personal
from shared.privacy.secrets import find_secrets
from shared.privacy.spans import NAMES, PERSONAL, SECRET, Kind, Span, masked, redact
from shared.privacy.values import Spotted, redacted, spot, strings

__all__ = [
    "NAMES",
    "PERSONAL",
    "SECRET",
    "Kind",
    "Span",
    "Spotted",
    "find_personal",
    "find_secrets",
    "masked",
    "redact",
    "redacted",
    "spot",
    "strings",
]
