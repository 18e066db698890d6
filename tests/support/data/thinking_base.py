"""The tiny base as one that thinks before it answers, in the manner of Qwen 3 or of the distills of R1.

Only the chat template and two tokens differ: `<think>` and `</think>`, as vLLM's parsers want them. A training can make
it write both; before that it writes anything.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

MARKS = ("<think>", "</think>")
_MESSAGES = """\
{%- for message in messages -%}
    {%- set content = message.content or '' -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.role == 'assistant' -%}
        @ANSWER@
    {%- else -%}
        {{- content -}}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
"""
QWEN3 = (
    _MESSAGES.replace(
        "@ANSWER@",
        """{%- set thoughts = message.reasoning_content or '' -%}
        {%- if '</think>' in content -%}
            {%- set thoughts = content.split('</think>')[0].split('<think>')[-1] -%}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
        {%- endif -%}
        {%- if loop.last -%}{{- '<think>\\n' + thoughts.strip('\\n') + '\\n</think>\\n\\n' -}}{%- endif -%}
        {{- content -}}""",
    )
    + """\
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}
"""
)
"""Thinks by default, and can be asked not to; thoughts of earlier turns are left out."""
R1 = (
    _MESSAGES.replace("@ANSWER@", "{{- content.split('</think>')[-1].lstrip('\\n') -}}")
    + "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n' -}}{%- endif -%}\n"
)
"""Always thinks: the prompt opens the thoughts, and no turn shows them."""
TEMPLATES = {"qwen3": QWEN3, "deepseek_r1": R1}
"""By the name of vLLM's parser for it."""


def make_thinking_base(tiny: Path, folder: Path, template: str) -> Path:
    """Write the base into `folder`, from the folder of the tiny base."""
    shutil.copytree(tiny, folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_tokens(list(MARKS))
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        known = weights[name]
        new = torch.randn(len(MARKS), known.shape[1], generator=generator) * known.std()
        weights[name] = torch.cat([known, new.to(known.dtype)])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": len(tokenizer)}))
    return folder
