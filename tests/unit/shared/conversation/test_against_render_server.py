"""What is trained is what vLLM's render server serves, on tiny bases of other families' classes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig

from shared.base import stop_ids
from shared.base.making import profile_at
from shared.conversation import Unfit
from tests.families.kinds import KINDS
from tests.families.render_server import render_server
from tests.families.served import Base
from tests.families.tiny import FAMILIES, Family, make_folder

pytestmark = pytest.mark.torch

# a server cannot be asked for the first answer; the other kinds depend on what a template writes
FIRST = {"assistant opens"}
THOUGHTS = {"reasoning"}
TOOLS = {"tools, result", "call last", "call beside text", "parallel calls", "bare tool", "values"}
SYSTEM = {"turns, system", "empty system", "developer"}
REFUSED = {
    "Llama 2": FIRST | THOUGHTS | TOOLS,
    "Llama 3.1": FIRST | THOUGHTS | {"call beside text", "parallel calls"},
    "Mistral": FIRST | THOUGHTS | {"call beside text"},
    "Qwen 2.5": FIRST | THOUGHTS,
    "Qwen 3": FIRST,
    "Qwen 3 MoE": FIRST | THOUGHTS,
    "R1 distill": FIRST | TOOLS,
    "Gemma 2": FIRST | THOUGHTS | TOOLS | SYSTEM,
    "Gemma 3": FIRST | THOUGHTS | TOOLS,
    "Phi 3": FIRST | THOUGHTS | TOOLS,
    "Phi 4": FIRST | THOUGHTS | TOOLS,
    "Granite 4": FIRST | THOUGHTS,
    "OLMo 2": FIRST | THOUGHTS | TOOLS,
    "GPT-NeoX": FIRST | THOUGHTS | TOOLS,
    "Command-R": FIRST | THOUGHTS | TOOLS,
    "GLM 4.5": FIRST,
}
COMPLETIONS = [("def f():\n", "    return 1\n"), ("Where is it? Answer: ", "It is here."), ("Is it here?", " It is.")]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_kind_of_conversation_is_refused_or_trained_as_it_is_served(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    folder = make_folder(family, tmp_path)
    results = asyncio.run(ask(folder, folder, family))
    assert {kind for kind, found in results.items() if found is None} == REFUSED[name]
    assert {kind: found for kind, found in results.items() if found} == {}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_profile_of_the_base_names_these_parsers(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    profile = profile_at(str(make_folder(family, tmp_path)), name)
    assert (profile.tool_call_parser, profile.reasoning_parser) == (family.tool_call_parser, family.reasoning_parser)
    assert profile.tokenizer_mode == "auto"


def _a_space_more(template: str) -> str:
    return template + "{% if add_generation_prompt %} {% endif %}"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("Llama 2", lambda template: template.replace("<<SYS>>\\n", "<<SYS>> ")),
        ("Mistral", lambda template: template.replace("(tools | tojson)", "(tools | tojson(indent=1))")),
        ("Qwen 3", _a_space_more),
        ("Gemma 2", _a_space_more),
    ],
)
def test_a_template_that_differs_on_the_server_is_noticed(
    name: str, change: Callable[[str], str], tmp_path: Path
) -> None:
    family = FAMILIES[name]
    ours, served = (make_folder(family, tmp_path / side) for side in ("ours", "served"))
    template = served / "chat_template.jinja"
    before = template.read_text()
    template.write_text(change(before))
    assert template.read_text() != before
    noticed = {kind: found for kind, found in asyncio.run(ask(ours, served, family)).items() if found}
    assert noticed
    assert all("it does not follow the served prompt" in lines[0] for lines in noticed.values())


@pytest.mark.parametrize(
    ("kind", "without", "lost"),
    [
        ("call last", {"tool_call_parser": "pythonic"}, "find_order"),
        ("reasoning", {"reasoning_parser": None}, "The parcel left yesterday."),
    ],
)
def test_a_parser_that_does_not_fit_is_noticed(kind: str, without: dict[str, Any], lost: str, tmp_path: Path) -> None:
    family = replace(FAMILIES["Qwen 3"], **without)
    folder = make_folder(family, tmp_path)
    found = asyncio.run(ask(folder, folder, family))[kind]
    assert found
    assert any(lost in line.partition("is served as")[0] for line in found)


async def ask(ours: Path, served: Path, family: Family) -> dict[str, list[str] | None]:
    """What is wrong with each kind of conversation, and with completions; None: it is refused."""
    tokenizer = AutoTokenizer.from_pretrained(ours)
    stops = stop_ids(tokenizer, GenerationConfig.from_pretrained(ours))
    parsers = {"tool_call_parser": family.tool_call_parser, "reasoning_parser": family.reasoning_parser}
    results: dict[str, list[str] | None] = {}
    async with render_server(served, **parsers) as server:
        base = Base(server, tokenizer, stops, thinks=family.reasoning_parser is not None)
        for kind, (messages, tools) in KINDS.items():
            try:
                results[kind] = await base.wrong(messages, tools)
            except Unfit:
                results[kind] = None
        for prompt, completion in COMPLETIONS:
            results[prompt] = await base.completion_wrong(prompt, completion)
    return results
