"""What we give to chat templates is what vLLM's own code gives to them."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from shared.conversation import ChatTemplate, content_format, sent_messages, sent_tools
from tests.support.data.micro_base import make_tokenizer
from tests.unit.shared.conversation.rows import (
    BARE_TOOL,
    CONVERSATIONS,
    DUMP,
    DUMP_DEVELOPER,
    DUMP_PARTS,
    TOOL,
)
from tests.unit.shared.conversation.test_content_format import TEMPLATES

pytestmark = pytest.mark.torch  # vLLM imports torch


@pytest.mark.parametrize("template", [DUMP, DUMP_PARTS, DUMP_DEVELOPER], ids=["string", "openai", "developer"])
@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("tools", [None, [TOOL, BARE_TOOL]], ids=["", "tools"])
def test_a_template_gets_what_vllm_gives_it(template: str, kind: str, tools: list[dict[str, Any]] | None) -> None:
    messages = sent_messages(CONVERSATIONS[kind])
    tokenizer = make_tokenizer(template)
    ours = ChatTemplate(tokenizer).text(messages, sent_tools({"tools": tools}), prompt=True)
    assert ours == vllm_text(tokenizer, template, messages, tools)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_content_format_is_detected_as_vllm_does(template: str) -> None:
    from vllm.renderers.hf import _detect_content_format  # noqa: PLC0415  takes ten seconds

    assert content_format(template) == _detect_content_format(template, default="string")


def vllm_text(tokenizer: Any, template: str, messages: list[dict[str, Any]], tools: Any) -> str:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest  # noqa: PLC0415
    from vllm.renderers.chat_utils import parse_chat_messages  # noqa: PLC0415
    from vllm.renderers.hf import _detect_content_format, safe_apply_chat_template  # noqa: PLC0415

    body = copy.deepcopy({"model": "m", "messages": messages, **({"tools": tools} if tools else {})})
    request = ChatCompletionRequest.model_validate(body)
    config: Any = SimpleNamespace(
        multimodal_config=None,
        enable_prompt_embeds=False,
        hf_config=SimpleNamespace(model_type="llama"),
        allowed_local_media_path="",
        allowed_media_domains=None,
    )
    conversation, _, _ = parse_chat_messages(
        request.messages, config, _detect_content_format(template, default="string")
    )
    params = request.build_chat_params(template, "auto")
    offered = None if request.tools is None else [tool.model_dump() for tool in request.tools]
    kwargs = {**params.get_apply_chat_template_kwargs(), "tools": offered, "tokenize": False}
    kwargs.pop("return_dict")
    return str(safe_apply_chat_template(config, tokenizer, conversation, **kwargs))
