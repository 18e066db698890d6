"""Ask a tuned model through the official OpenAI client: `python ask.py support "Where is my refund?"`.

OPENAI_BASE_URL names the server (default http://127.0.0.1:8000/v1), OPENAI_API_KEY its key, if it wants one.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask a model one question; the answer is streamed.")
    parser.add_argument("model", help="an alias or the exact id of a model, for example support")
    parser.add_argument("question")
    parser.add_argument("--system", help="system prompt; a tuned model answers best to the one it was trained with")
    parser.add_argument("--tools", type=Path, help="a dataset (.jsonl): the tools of its first row are offered")
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.0)
    options = parser.parse_args()
    client = OpenAI(
        base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
    )
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": options.question}]
    if options.system:
        messages.insert(0, {"role": "system", "content": options.system})
    offered: dict[str, Any] = {}
    if options.tools:
        offered["tools"] = json.loads(options.tools.read_text(encoding="utf-8").splitlines()[0])["tools"]
    stream = client.chat.completions.create(
        model=options.model,
        messages=messages,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        stream=True,
        **offered,
    )
    calls: dict[int, list[str]] = defaultdict(list)
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
            for call in choice.delta.tool_calls or []:  # the name comes first, the arguments in pieces
                if call.function:
                    calls[call.index] += [call.function.name or "", call.function.arguments or ""]
    print(*(f"{name} {''.join(arguments)}" for name, *arguments in calls.values()), sep="\n")


if __name__ == "__main__":
    main()
