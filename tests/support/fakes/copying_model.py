"""A model that knows nothing, and copies the last example in its prompt, behind an OpenAI-shaped HTTP server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

NO_EXAMPLE = "I do not know."


@dataclass
class CopyingModel:
    """`failures`: the status of the first answers, one for each request."""

    failures: list[int] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.post("/v1/chat/completions")(self._chat)
        return app

    async def _chat(self, request: Request) -> JSONResponse:
        body = await request.json()
        self.requests.append(body)
        self.keys.append(request.headers.get("authorization"))
        if self.failures:
            return JSONResponse({"error": {"message": "try another day"}}, self.failures.pop(0))
        examples = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
        said = {"role": "assistant", "content": examples[-1] if examples else NO_EXAMPLE}
        return JSONResponse({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]})
