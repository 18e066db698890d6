"""/keys: make, list, retrieve, revoke."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from services.api.resources.answers import Deleted, Key, KeyList, NewKey
from services.api.resources.keys import store
from services.api.resources.keys.domain import KeyBody, key_view
from services.api.resources.lists import behind, listing
from shared.access.keyring import Keyring
from shared.access.principal import principal_of
from shared.errors import CorruptObject
from shared.events import ApiKey
from shared.http.errors import ApiError
from shared.http.json_route import JsonRoute
from shared.http.responses import JsonResponse
from shared.stages.ledger import Ledger


def router(keyring: Keyring, ledger: Ledger) -> APIRouter:
    """`keyring`: that of this process, which sees at once what is changed here."""
    routes = APIRouter(tags=["keys"], route_class=JsonRoute)

    @routes.post("/keys", response_model=NewKey)
    async def create_key(body: KeyBody, request: Request) -> Response:
        """Make a key. The answer alone holds its `secret`: it is kept nowhere."""
        if "admin" not in body.rights and not await keyring.has_admin():
            raise ApiError(
                400,
                "This would be the first key, and from then on a key is needed, but none could make another. Make one "
                "with the right `admin` first, or set TUNESTREAM_INFERENCE__API_KEYS.",
                param="rights",
                code="admin_key_first",
            )
        who = principal_of(request)
        key, secret = await store.create(body, who.project, who.key_id, keyring, ledger)
        return JsonResponse({**key_view(key), "secret": secret}, headers={"cache-control": "no-store"})

    @routes.get("/keys", response_model=KeyList)
    async def list_keys(limit: Annotated[int, Query(ge=1, le=100)] = 20, after: str | None = None) -> Response:
        """Newest first, revoked ones too; `after` is the id of the last key of the page before."""
        keys = behind(await keyring.all(), after, lambda key: key.id)
        if keys is None:
            raise ApiError(404, f"There is no key {after!r} to continue after.", param="after", code="key_not_found")
        return JsonResponse(listing([key_view(key) for key in keys[:limit]], len(keys) > limit))

    @routes.get("/keys/{key_id}", response_model=Key)
    async def retrieve_key(key_id: str) -> Response:
        """The key without its secret."""
        try:
            found = await store.retrieve(key_id, ledger)
        except CorruptObject as error:
            raise _unreadable(error) from None
        return JsonResponse(key_view(_existing(found[0] if found else None, key_id)))

    @routes.delete("/keys/{key_id}", response_model=Deleted)
    async def revoke_key(key_id: str, request: Request) -> Response:
        """Revoke a key. It is refused at once here, and within five seconds everywhere."""
        try:
            found = await store.revoke(key_id, principal_of(request).key_id, keyring, ledger)
        except CorruptObject as error:
            raise _unreadable(error) from None
        answer: dict[str, Any] = {"id": _existing(found, key_id).id, "object": "api_key", "deleted": True}
        return JsonResponse(answer)

    return routes


def _existing(key: ApiKey | None, key_id: str) -> ApiKey:
    if key is None:
        message = f"There is no key {key_id[:100]!r}; GET /keys lists them."
        raise ApiError(404, message, param="key_id", code="key_not_found")
    return key


def _unreadable(error: CorruptObject) -> ApiError:
    return ApiError(502, f"{str(error).capitalize()}, so it is refused everywhere.", code="corrupt_object")
