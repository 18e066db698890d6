"""The three routes of vLLM that clients may use. The gateway finds the model that the client named, and passes the
answer on as it comes. No other route of vLLM can be reached from outside.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import quote

from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.inference import metrics
from services.inference.domain.suspects import MARKS, REMEMBERED_SECONDS, Generation, Suspects
from services.inference.domain.usage import StreamedUsage, usage_of
from services.inference.errors import ERRORS, RETRY_AFTER, VllmUnavailable
from services.inference.gateway.admission import Admission, Slot
from services.inference.gateway.answers import generation
from services.inference.gateway.asked import Asked, preferred_wait, read_request
from services.inference.gateway.exchange import GENERATION, Exchange, exchange
from services.inference.gateway.refusals import as_api_error
from services.inference.gateway.upstream import GenerationClient, Upstream, UpstreamBroken, UpstreamTimeout
from services.inference.registry.adapters import Adapters
from services.inference.registry.first_requests import FirstRequests
from services.inference.registry.models import Models, Target
from services.inference.vllm.server import Vllm
from shared.access.principal import principal_of
from shared.http.client_gone import CLIENT_GONE, ClientGone, UntilGone
from shared.http.errors import ApiError

PATIENCE = 90.0
"""Seconds that a request waits while vLLM starts. A restart on two cores takes about 45 s."""
TRIAL_SECONDS = 2.0
"""How long a request that may have killed vLLM is watched alone. A prompt that kills does it at its first step."""


class Gateway:
    """Forwards a request for a generation to vLLM. If vLLM breaks before the first byte, it forwards it once more,
    unless this very request is the cause."""

    def __init__(
        self,
        client: GenerationClient,
        vllm: Vllm,
        adapters: Adapters,
        models: Models,
        first_requests: FirstRequests,
        admission: Admission,
        *,
        patience: float = PATIENCE,
    ) -> None:
        """`patience`: seconds that a request waits for vLLM to be up."""
        self._client = client
        self._vllm = vllm
        self._adapters = adapters
        self._models = models
        self._first_requests = first_requests
        self._admission = admission
        self._patience = patience
        self._suspects = Suspects()
        self._trial = asyncio.Lock()

    def router(self) -> APIRouter:
        routes = APIRouter()
        for path in GENERATION:
            routes.routes.append(Route(path, _Route(path, self), methods=["POST"], include_in_schema=False))
        return routes

    async def answer(self, current: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. `current` gets its status."""
        async with AsyncExitStack() as stack:
            try:
                slot = stack.enter_context(self._admission.slot())
                asked = await read_request(receive, slot)
                async with UntilGone(receive):
                    await self._generate(stack, current, slot, asked, scope, send)
            except ClientGone:
                current.status = CLIENT_GONE
            except Exception as error:
                if current.answered:  # too late for another answer
                    raise
                refused = ERRORS.answer(error, scope)
                current.status = refused.status
                await refused.response()(scope, receive, send)

    async def _generate(
        self, stack: AsyncExitStack, current: Exchange, slot: Slot, asked: Asked, scope: Scope, send: Send
    ) -> None:
        """Send the whole answer, or a stream of it. `stack` holds open what is needed for it."""
        current.patience = min(self._patience, preferred_wait(Headers(scope=scope).get("prefer", "")))
        target = await self._models.resolve(asked.model, principal_of(scope).project)
        asked_by = scope["state"]["asked_by"]
        job_trace = await self._first_requests.job_trace(target.model, tuned=target.tuned, asked_by=asked_by)
        current.begin(target.model, job_trace)
        generation = Generation((current.route, target.model, asked.digest))
        upstream = await stack.enter_async_context(self._upstream(current, target, generation, asked))
        current.first_byte()
        headers = {"x-tunestream-model": target.model}
        if target.alias is not None:
            headers["x-tunestream-alias"] = quote(target.alias, safe="")  # a header is ASCII
        if upstream.status >= 400:
            if upstream.status < 500:
                self._suspects.succeeded(generation)
            error = as_api_error(upstream.status, await upstream.body(), current.route, target.model)
            error.headers = headers
            raise error
        headers["content-type"] = upstream.content_type
        asked.rest = b""  # it is not sent again
        slot.release_body()
        if asked.streamed:
            headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
            whole = await self._stream(upstream, current, generation, asked.hides_usage, headers, send)
        else:
            try:
                content = await upstream.body()
            except (UpstreamBroken, UpstreamTimeout):
                await self._note_death(generation)
                raise _broken_midway() from None
            current.count(usage_of(content))
            headers["content-length"] = str(len(content))
            await current.start(send, upstream.status, headers)
            await send({"type": "http.response.body", "body": content})
            whole = True
        if whole:
            self._suspects.succeeded(generation)

    async def _stream(
        self,
        upstream: Upstream,
        current: Exchange,
        generation: Generation,
        hides_usage: bool,
        headers: dict[str, str],
        send: Send,
    ) -> bool:
        """Pass a stream on. Returns whether it came to its end."""
        await current.start(send, upstream.status, headers)
        usage = StreamedUsage(hidden=hides_usage)
        whole = True
        try:
            async for chunk in upstream.chunks():
                if passed := usage.pass_on(chunk):
                    await send({"type": "http.response.body", "body": passed, "more_body": True})
            rest = usage.rest()
        except (UpstreamBroken, UpstreamTimeout):
            # the status has been sent already; the official clients raise an error for such an event
            whole, current.status = False, 502
            await self._note_death(generation)
            rest = f"data: {json.dumps(_broken_midway().envelope())}\n\n".encode()
        finally:
            current.count(usage.found)
            if usage.found is None:  # a client that hangs up before the end has used tokens, too
                current.spend(usage.events)
        await send({"type": "http.response.body", "body": rest})
        return whole

    @asynccontextmanager
    async def _upstream(
        self, current: Exchange, target: Target, generation: Generation, asked: Asked
    ) -> AsyncIterator[Upstream]:
        """vLLM's answer, with whatever status. vLLM, the adapter and the connection are in use until the block is left.

        Raises:
            VllmUnavailable: vLLM is not up, or asleep.
            ApiError: vLLM broke twice, or because of this request.
        """
        for last in (False, True):
            self._refuse_killers(generation)
            async with AsyncExitStack() as attempt:
                upstream = await self._try(attempt, current, target, generation, asked, last=last)
                if upstream is not None:
                    yield upstream
                    return
            if generation.guilty:
                break
        self._refuse_killers(generation)
        if generation.guilty:
            raise VllmUnavailable("The model server died while it worked on this request, and on no other")
        raise ApiError(
            502,
            "The model server broke twice while it worked on this request.",
            code="bad_gateway",
            headers={"retry-after": str(RETRY_AFTER)},
        )

    async def _try(
        self,
        attempt: AsyncExitStack,
        current: Exchange,
        target: Target,
        generation: Generation,
        asked: Asked,
        *,
        last: bool,
    ) -> Upstream | None:
        """vLLM's answer, of which the first chunk has come. None if vLLM broke, or has lost the adapter."""
        trial = None
        if self._suspects.marks(generation.key, time.monotonic()):
            trial = await attempt.enter_async_context(_Trial(self._trial, generation, current.patience))
        await attempt.enter_async_context(self._vllm.using(current.patience))
        try:
            if target.tuned:
                with current.as_parent():
                    await attempt.enter_async_context(self._adapters.using(target.model))
            name = target.model if target.tuned else self._vllm.base_name
            # identity, because the usage is read from the answer; no x-request-id, because vLLM uses it as a key of
            # its own, which must be unique
            headers = {
                "content-type": "application/json",
                "accept-encoding": "identity",
                "traceparent": current.traceparent,
            }
            if trial is not None:
                self._refuse_killers(generation)  # its twin may have been tried meanwhile
                trial.begin()
            generation.counted = generation.guilty = False
            self._suspects.begin(generation)
            attempt.callback(self._suspects.end, generation)
            upstream = await self._client.open(self._vllm.url + current.route, asked.content(name), headers)
            attempt.callback(upstream.close)
        except UpstreamTimeout:
            raise ApiError(504, "The model took too long to answer.", code="upstream_timeout") from None
        except (UpstreamBroken, VllmUnavailable):
            self._vllm.suspect()
            self._adapters.forget(target.model)  # a restarted server comes back without it
            await self._note_death(generation)
            return None
        if upstream.status == 404 and target.tuned and not last:
            self._adapters.forget(target.model)
            return None
        if upstream.status >= 500 and not await self._vllm.healthy():
            self._vllm.suspect()
            self._suspects.died(generation, time.monotonic())
            return None
        if trial is not None:
            trial.end()
        return upstream

    async def _note_death(self, generation: Generation) -> None:
        """Find out whether vLLM has died, now that the connection of `generation` broke."""
        if not await self._vllm.healthy():
            self._suspects.died(generation, time.monotonic())

    def _refuse_killers(self, generation: Generation) -> None:
        if self._suspects.marks(generation.key, time.monotonic()) >= MARKS:
            metrics.refused.labels("kills_vllm").inc()
            # no status that official clients try again
            raise ApiError(
                400,
                f"The model server died {MARKS} times while it worked on this very request, so the request is not sent "
                f"to it again for {REMEMBERED_SECONDS / 60:.0f} minutes. Change the request; the log of the model "
                "server says why it died.",
                code="request_kills_server",
            )


def _broken_midway() -> ApiError:
    return ApiError(502, "The model server broke in the middle of the answer.", code="bad_gateway")


class _Route:
    """One route as an ASGI app: FastAPI's own handling of a request costs as much as ours."""

    def __init__(self, path: str, gateway: Gateway) -> None:
        self.path = path
        self.operation = generation(path)
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self  # metrics and spans name it by its `path`
        with exchange(self.path, scope["state"]) as current:
            await self._gateway.answer(current, scope, receive, send)


class _Trial:
    """Lets one marked request at a time go to vLLM: from `begin` to `end`, to the end of the block, or for
    `TRIAL_SECONDS`."""

    def __init__(self, lock: asyncio.Lock, generation: Generation, patience: float) -> None:
        self._lock = lock
        self._generation = generation
        self._patience = patience
        self._held = False

    async def __aenter__(self) -> _Trial:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await self._lock.acquire()
                self._held = True
        if not self._held:
            raise VllmUnavailable("Other requests are tried first, because the model server died")
        return self

    def begin(self) -> None:
        self._generation.on_trial = True
        asyncio.get_running_loop().call_later(TRIAL_SECONDS, self.end)

    def end(self) -> None:
        self._generation.on_trial = False
        if self._held:
            self._held = False
            self._lock.release()

    async def __aexit__(self, *_: object) -> None:
        self.end()
