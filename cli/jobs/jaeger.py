"""Jaeger over HTTP: the page of a trace, and its spans."""

from __future__ import annotations

import httpx

from cli.client import Json
from cli.terminal import CliError

TIMEOUT = httpx.Timeout(30.0, connect=3.0)


def link(jaeger_url: str, trace_id: str) -> str:
    """The page of a trace."""
    return f"{jaeger_url.rstrip('/')}/trace/{trace_id}"


def fetch(jaeger_url: str, trace_id: str, transport: httpx.BaseTransport | None = None) -> Json | None:
    """The trace in the form of Jaeger's own page (`spans`, `processes`); None: Jaeger has no span of it.

    Raises:
        CliError: nothing answers at that address, or a server that is not Jaeger.
    """
    url = f"{jaeger_url.rstrip('/')}/api/traces/{trace_id}"
    try:
        with httpx.Client(timeout=TIMEOUT, transport=transport, trust_env=False) as http:
            answer = http.get(url)
            if answer.status_code == 404:
                return None
            found = answer.raise_for_status().json()["data"]
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise CliError(
            f"no Jaeger answers at {jaeger_url} ({type(error).__name__})",
            "set TUNESTREAM_TELEMETRY__JAEGER_URL to the address of its page, such as http://127.0.0.1:16686",
        ) from None
    trace: Json | None = found[0] if found else None
    return trace
