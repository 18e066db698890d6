"""What is known of a base, in plain words: what can be trained on it, and what will not work."""

from __future__ import annotations

import json

from shared.base import BaseProfile


def words(profile: BaseProfile) -> dict[str, str]:
    """A name and a value per line of a table."""
    lines = {
        "architecture": profile.architecture,
        "thoughts": profile.reasoning + _parser(profile.reasoning_parser),
        "tools": _tools(profile),
        "context": f"{profile.context:,} tokens" if profile.context else "no limit stated",
        "stops at": ", ".join(profile.stop_tokens) or "nothing: answers end at their longest length",
        "sampling defaults": ", ".join(f"{name} {value:g}" for name, value in profile.sampling.items()) or "vLLM's own",
    }
    if profile.chat_template_kwargs:
        lines["template is given"] = json.dumps(profile.chat_template_kwargs)
    if profile.tokenizer_mode != "auto":
        lines["tokenizer mode"] = profile.tokenizer_mode
    lines["profile"] = profile.digest[:12]
    return lines


def caveats(profile: BaseProfile) -> list[str]:
    """What will not work with this base."""
    if profile.template_digest is None:
        return ["no chat template: chat rows and preference pairs are refused, only prompt/completion rows can be used"]
    found = []
    knows = profile.knows
    if not knows.system:
        found.append("no system messages: rows with one are refused")
    if not knows.tool_calls:
        what = "calls" if knows.tools else "tools"
        found.append(f"no {what}: rows with {what} are refused")
    elif profile.tool_call_parser is None:
        found.append("no parser for its calls: they are trained, but the endpoint refuses requests with tools")
    if knows.tool_calls and not knows.several_calls:
        found.append("one call per answer: rows with several at once are refused")
    if knows.tool_calls and not knows.tool_results:
        found.append("no results of tools: rows with one are refused")
    if profile.reasoning != "none" and profile.reasoning_parser is None:
        found.append("no parser for its thoughts: they stay in the text of an answer")
    return found


def _parser(name: str | None) -> str:
    return f" (parser {name})" if name else ""


def _tools(profile: BaseProfile) -> str:
    if profile.knows.tool_calls:
        return "yes" + _parser(profile.tool_call_parser)
    return "in prompts only" + _parser(profile.tool_call_parser) if profile.knows.tools else "no"
