"""vLLM's render server within this process: its own application, without a port.

A server of its own takes twenty seconds to start, most of them for imports, and there is one for each family.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

MODEL = "m"


@contextlib.asynccontextmanager
async def render_server(
    folder: Path, *, tool_call_parser: str | None = None, reasoning_parser: str | None = None
) -> AsyncIterator[Server]:
    """`vllm launch render` for a base in a folder."""
    level = logging.root.level
    try:
        app = await _app(folder, tool_call_parser, reasoning_parser)
    finally:
        logging.root.setLevel(level)  # imports of vLLM's raise it
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://render") as client:
            yield Server(client)
    finally:
        app.state.online_renderer.renderer.shutdown()


async def _app(folder: Path, tool_call_parser: str | None, reasoning_parser: str | None) -> Any:
    from vllm import AsyncEngineArgs  # noqa: PLC0415  takes ten seconds
    from vllm.config import VllmConfig  # noqa: PLC0415
    from vllm.entrypoints.launchers.app import build_app  # noqa: PLC0415
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args  # noqa: PLC0415
    from vllm.entrypoints.launchers.render.app_state import init_render_app_state  # noqa: PLC0415
    from vllm.model_executor.models import registry  # noqa: PLC0415
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415

    # vLLM starts a process for each class that it sees for the first time, and each imports vLLM again
    registry._run_in_subprocess = lambda look: look()

    line = ["--model", str(folder), "--served-model-name", MODEL]
    if tool_call_parser:
        line += ["--enable-auto-tool-choice", "--tool-call-parser", tool_call_parser]
    if reasoning_parser:
        line += ["--reasoning-parser", reasoning_parser]
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(line)
    validate_parsed_serve_args(arguments)
    # from here on as in vllm/entrypoints/launchers/render/entry.py
    engine = AsyncEngineArgs.from_cli_args(arguments)
    model = engine.create_model_config()
    model.quantization = None
    config = VllmConfig(
        model_config=model,
        logging_config=engine.create_logging_config(),
        structured_outputs_config=engine.create_structured_outputs_config(),
    )
    app: Any = build_app(arguments, ("render",))
    await init_render_app_state(config, app.state, arguments)
    return app


class Server:
    """What the server says to a request, or to the ids of an answer."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def prompt(self, messages: Any, tools: Any) -> list[int]:
        """The ids of the prompt that it makes of a conversation."""
        return list((await self._post("chat/completions/render", _chat(messages, tools)))["token_ids"])

    async def message(self, messages: Any, tools: Any, prompt: list[int], answer: list[int]) -> dict[str, Any]:
        """The message that a client gets for the ids of an answer, which end before the stop token."""
        body = {**_generated(prompt, answer), "prompt_token_ids": prompt, "chat_request": _chat(messages, tools)}
        return dict((await self._post("chat/completions/derender", body))["choices"][0]["message"])

    async def prompt_of_text(self, text: str) -> list[int]:
        [made] = await self._post("completions/render", {"model": MODEL, "prompt": text})
        return list(made["token_ids"])

    async def text(self, prompt: list[int], answer: list[int]) -> str:
        """The text that a client gets after the prompt of a completion."""
        generated = _generated(prompt, answer)["generate_response"]
        body = {"model": MODEL, "generate_responses": [generated], "prompt_token_ids": [prompt]}
        return str((await self._post("completions/derender", body))["choices"][0]["text"])

    async def _post(self, path: str, body: Any) -> Any:
        answer = await self._client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


def _chat(messages: Any, tools: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": messages, **({"tools": tools} if tools else {})}


def _generated(prompt: list[int], answer: list[int]) -> dict[str, Any]:
    choice = {"index": 0, "token_ids": answer, "finish_reason": "stop"}
    made = {"request_id": "r", "choices": [choice], "prompt_token_ids": prompt}
    return {"model": MODEL, "generate_response": made}
