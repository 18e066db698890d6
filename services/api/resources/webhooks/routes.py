"""/v1/webhook_endpoints: create, list, retrieve, update, delete, replace the secret, send a sample."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from services.api.domain.addresses import BadTarget
from services.api.domain.webhooks import EVENT_TYPES, Endpoint, WebhookEvent, signed
from services.api.resources.answers import (
    Deleted,
    WebhookEndpoint,
    WebhookEndpointList,
    WebhookEndpointSecret,
    WebhookEventTypes,
    WebhookTest,
)
from services.api.resources.dependencies import Dependencies
from services.api.resources.lists import behind, listing
from services.api.resources.new_ids import new_id
from services.api.resources.webhooks.domain import (
    MOST_ENDPOINTS,
    CreateBody,
    RotateBody,
    SampleBody,
    UpdateBody,
    changed,
    deleted,
    endpoint_view,
    known_types,
    rotated,
)
from services.api.resources.webhooks.store import Endpoints, new_secret
from services.api.webhooks.receivers import NoAnswer
from shared.access.principal import principal_of
from shared.http.errors import ApiError
from shared.http.json_route import JsonRoute
from shared.http.repeated import is_repeated
from shared.http.responses import JsonResponse


def router(dependencies: Dependencies) -> APIRouter:
    routes = APIRouter(tags=["webhooks"], route_class=JsonRoute, prefix="/v1")
    endpoints = Endpoints(dependencies.objects)

    async def own(request: Request, endpoint_id: str, *, deleted: bool = False) -> Endpoint:
        """The endpoint, if it is of the sender's project. Which project an endpoint has never changes. `deleted`: also
        one that was deleted."""
        endpoint = await endpoints.get(endpoint_id, deleted=deleted)
        if endpoint is None or endpoint.project != principal_of(request).project:
            raise _missing(endpoint_id)
        return endpoint

    async def check(url: str) -> None:
        try:
            await dependencies.receivers.check(url)
        except BadTarget as error:
            raise ApiError(
                400, f"No webhook can be sent to this URL: {error}.", param="url", code="invalid_url"
            ) from None

    @routes.get("/webhook_event_types", response_model=WebhookEventTypes)
    async def list_webhook_event_types() -> Response:
        """The types of events that an endpoint can subscribe to."""
        return JsonResponse({"object": "list", "data": list(EVENT_TYPES)})

    @routes.post("/webhook_endpoints", response_model=WebhookEndpointSecret)
    async def create_webhook_endpoint(request: Request, body: CreateBody) -> Response:
        """Make an endpoint. This answer alone shows its secret."""
        types = known_types(body.event_types, "event_types")
        await check(body.url)
        project = principal_of(request).project
        if len(await endpoints.of(project)) >= MOST_ENDPOINTS:
            message = f"The project has {MOST_ENDPOINTS} webhook endpoints, which is the most; delete one."
            raise ApiError(400, message, code="too_many_endpoints")
        endpoint = await endpoints.create(project, body.name, body.url, types)
        dependencies.webhooks_wanted.set()
        return JsonResponse(endpoint_view(endpoint, secret=True))

    @routes.get("/webhook_endpoints", response_model=WebhookEndpointList)
    async def list_webhook_endpoints(
        request: Request, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: str | None = None
    ) -> Response:
        """Newest first; `after` is the id of the last endpoint of the page before, which may be deleted by now."""
        known = await endpoints.of(principal_of(request).project, deleted=True)
        rest = behind(known, after, lambda each: each.id)
        if rest is None:
            message = f"There is no webhook endpoint {after!r} to continue after."
            raise ApiError(404, message, param="after", code="webhook_endpoint_not_found")
        found = [each for each in rest if each.deleted_at is None]
        return JsonResponse(listing([endpoint_view(each) for each in found[:limit]], len(found) > limit))

    @routes.get("/webhook_endpoints/{endpoint_id}", response_model=WebhookEndpoint)
    async def retrieve_webhook_endpoint(request: Request, endpoint_id: str) -> Response:
        """The endpoint without its secret."""
        return JsonResponse(endpoint_view(await own(request, endpoint_id)))

    @routes.post("/webhook_endpoints/{endpoint_id}", response_model=WebhookEndpoint)
    async def update_webhook_endpoint(request: Request, endpoint_id: str, body: UpdateBody | None = None) -> Response:
        """Change what the body names. A type of event that is added is told from now on."""
        await own(request, endpoint_id)
        update = body or UpdateBody()
        if update.url is not None:
            await check(update.url)
        endpoint = await endpoints.change(endpoint_id, lambda each: changed(each, update, endpoints.now()))
        if endpoint is None:
            raise _missing(endpoint_id)
        return JsonResponse(endpoint_view(endpoint))

    @routes.delete("/webhook_endpoints/{endpoint_id}", response_model=Deleted)
    async def delete_webhook_endpoint(request: Request, endpoint_id: str) -> Response:
        """Nothing is sent to it any more, not even what it has missed."""
        # who asks again may have lost the answer
        await own(request, endpoint_id, deleted=is_repeated(request))
        await endpoints.change(endpoint_id, lambda each: deleted(each, endpoints.now()))
        return JsonResponse({"id": endpoint_id, "deleted": True, "object": "webhook_endpoint.deleted"})

    @routes.post("/webhook_endpoints/{endpoint_id}/rotate_secret", response_model=WebhookEndpointSecret)
    async def rotate_webhook_secret(request: Request, endpoint_id: str, body: RotateBody | None = None) -> Response:
        """Replace the secret at once, or within a day, in which deliveries are signed with both."""
        await own(request, endpoint_id)
        keep, secret = bool(body and body.keep_old_secret_active_for_24_hours), new_secret()
        endpoint = await endpoints.change(
            endpoint_id, lambda each: rotated(each, secret, keep=keep, now=endpoints.now())
        )
        if endpoint is None:
            raise _missing(endpoint_id)
        return JsonResponse(endpoint_view(endpoint, secret=True))

    @routes.post("/webhook_endpoints/{endpoint_id}/test", response_model=WebhookTest)
    async def test_webhook_endpoint(request: Request, endpoint_id: str, body: SampleBody) -> Response:
        """Send a sample now, one time, whatever the endpoint has subscribed to."""
        endpoint = await own(request, endpoint_id)
        event_type = known_types([body.event_type], "event_type")[0]
        now = endpoints.now()
        # a job that does not exist, and another event each time
        sample = WebhookEvent(type=event_type, job_id=new_id("ftjob-"), at=now)
        content = sample.body()
        try:
            headers = signed(sample.id, now, content, endpoint.secrets(now))
            status = await dependencies.receivers.post(endpoint.url, content, headers)
        except NoAnswer as error:
            raise ApiError(
                400,
                f"The endpoint did not answer: {error}.",
                param="url",
                code="webhook_endpoint_unreachable",
                headers={"x-should-retry": "false"},
            ) from None
        about = {"object": "webhook_endpoint.test", "webhook_endpoint_id": endpoint_id, "event_type": event_type}
        return JsonResponse(about | {"status_code": status, "success": True})

    return routes


def _missing(endpoint_id: str) -> ApiError:
    return ApiError(
        404,
        f"There is no webhook endpoint {endpoint_id!r}; GET /v1/webhook_endpoints lists them.",
        param="webhook_endpoint_id",
        code="webhook_endpoint_not_found",
    )
