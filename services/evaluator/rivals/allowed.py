"""Which endpoint a rival may be asked at. Test rows go, and keys are sent, only where the operator said so: a job that
names an address of its own could otherwise read what the network shows to this service."""

from __future__ import annotations

from collections.abc import Mapping

from services.evaluator.rivals.client import RivalTrouble
from shared.events import Rival
from shared.settings.endpoints import ForeignEndpoint

SETTING = "TUNESTREAM_EVALUATOR__ENDPOINTS"


def endpoint_of(rival: Rival, endpoints: Mapping[str, ForeignEndpoint]) -> ForeignEndpoint:
    """The operator's endpoint that the rival names.

    Raises:
        RivalTrouble: there is none, with the remedy. It is no reason to fail a job that has trained for hours.
    """
    wanted = (rival.base_url or "").rstrip("/")
    for name, endpoint in endpoints.items():
        same_url = wanted == endpoint.base_url.rstrip("/")
        if (rival.endpoint in (None, name) and same_url) or (rival.endpoint == name and not wanted):
            return endpoint
    meant = rival.endpoint or wanted or "an endpoint that it does not name"
    known = ", ".join(sorted(endpoints)) or "no endpoint"
    raise RivalTrouble(
        f"it is to be asked at {meant[:200]}, which this deployment does not allow; it "
        f"allows {known}. Name one of them as `endpoint`, or have the operator add it to {SETTING}: "
        '{"name": {"base_url": "https://…/v1", "api_key": "…"}}.',
    )
