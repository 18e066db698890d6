"""Makes the HTTP app of a service. Before a route sees a request, its id, API key and size are dealt with, in this
order."""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI

from shared.access.keyring import Keyring
from shared.access.rights import RightsTable
from shared.http.bearer import BearerAuth
from shared.http.body_limit import BodyLimit, Limits
from shared.http.errors import ErrorTable
from shared.http.json_route import JsonRoute
from shared.http.openapi import VERSION, DocumentedApp, operation_id
from shared.http.request_id import RequestId
from shared.http.responses import JsonResponse


def make_http_app(
    title: str,
    keyring: Keyring,
    *,
    rights: RightsTable,
    organization: str = "",
    errors: ErrorTable | None = None,
    limits: Limits = MappingProxyType({}),
    own_spans: Collection[str] = (),
    handed_on: Collection[str] = (),
    **options: Any,
) -> FastAPI:
    """An app whose requests get a request id, then need a key of `keyring`, then a body within `limits`.

    `errors`: the table that the app answers exceptions from. `rights`, `organization` and `handed_on` are those of
    `BearerAuth`, `limits` those of `BodyLimit`, `own_spans` that of `RequestId`: generations; `options` are FastAPI's.
    """
    errors = errors or ErrorTable()
    app = DocumentedApp(
        title=title,
        version=VERSION,
        default_response_class=JsonResponse,
        generate_unique_id_function=operation_id,
        docs_url=None,
        redoc_url=None,
        **options,
    )
    app.router.route_class = JsonRoute  # of the routes that are added to the app itself
    errors.install(app)
    # the middleware that is added last is the first to see a request
    app.add_middleware(BodyLimit, limits=limits)
    app.add_middleware(
        BearerAuth,
        keyring=keyring,
        rights=rights,
        public=[app.openapi_url] if app.openapi_url else [],
        generations=own_spans,
        handed_on=handed_on,
        organization=organization,
    )
    app.add_middleware(RequestId, errors=errors, own_spans=own_spans)
    return app
