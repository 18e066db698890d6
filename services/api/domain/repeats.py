"""For how long requests are compared, to tell a client's retry from a new request."""

from __future__ import annotations

REPEATED_SECONDS = 600.0
"""For how long a repeated request means the job of its first try. A request is kept for so long at least."""
LATE_SECONDS = 10.0
"""For how long a first try may come after its retry. It is short, because mostly the first try never reached us, and
the next request with the same body is meant as another job."""
