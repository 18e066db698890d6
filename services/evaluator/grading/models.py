"""Which endpoint a model that grades is asked at: ours, as the evaluator and in the project of the job, or one of those
that the operator allows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from shared.events.limits import DEFAULT_PROJECT
from shared.graders.domain.outcome import Errors, Outcome
from shared.graders.judge import Asking, Judge
from shared.graders.run import Texts
from shared.settings import Settings
from shared.settings.endpoints import ForeignEndpoint

TRIES = 3
PAUSES = (1.0, 4.0)
"""In seconds, before the second and the third try of a request that an endpoint did not answer."""


class Models:
    """Asks models that grade, several times where an endpoint does not answer."""

    def __init__(
        self, settings: Settings, project: str, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._ours = Judge(settings.inference.url, timeout=settings.evaluator.timeout_seconds)
        self._headers: dict[str, bytes] = {}
        if settings.evaluator.api_key:
            self._headers["authorization"] = f"Bearer {settings.evaluator.api_key.get_secret_value()}".encode()
        if project != DEFAULT_PROJECT:
            self._headers["openai-project"] = project.encode()
        self._foreign: Mapping[str, ForeignEndpoint] = settings.evaluator.endpoints
        self._timeout = settings.evaluator.timeout_seconds
        self._sleep = sleep

    async def ask(self, grader: Asking, messages: Texts, headers: Mapping[str, bytes]) -> Outcome:
        """The outcome of a grader whose templates are filled. `headers` are not used: nobody asked but the job."""
        endpoint, _, rest = grader.model.partition("/")
        judge, sent = self._ours, self._headers
        if rest and endpoint in self._foreign:
            foreign = self._foreign[endpoint]
            judge = Judge(foreign.base_url, timeout=self._timeout, version="")
            key = foreign.api_key
            sent = {"authorization": f"Bearer {key.get_secret_value()}".encode()} if key else {}
            grader = grader.model_copy(update={"model": rest})
        outcome = Outcome(errors=Errors(other_error=True))
        for pause in (*PAUSES, None):
            outcome = await judge.ask(grader, messages, sent)
            if pause is None or not outcome.errors.model_grader_server_error:
                break
            await self._sleep(pause)
        return outcome
