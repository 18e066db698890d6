"""Scores of tool calls. The order of parallel calls does not matter, and neither does the spelling of their JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from services.evaluator.domain.tool_calls import ToolCall


def tool_calls(wanted: Sequence[ToolCall], given: Sequence[ToolCall]) -> dict[str, float]:
    """Three scores, each 1.0 or 0.0. Where no call is wanted, all are 1.0 if none is made.

    `tool_call_valid`: calls are made if some are wanted, and each has a name and a JSON object as arguments.
    `tool_call_name`: the functions that are called are the right ones. `tool_call_arguments`: so are their arguments.
    """
    valid = bool(wanted) == bool(given) and all(call.valid for call in given)
    names, wanted_names = (Counter(call.name for call in calls) for calls in (given, wanted))
    whole, wanted_whole = (Counter((call.name, call.arguments) for call in calls) for calls in (given, wanted))
    return {
        "tool_call_valid": float(valid),
        "tool_call_name": float(names == wanted_names),
        "tool_call_arguments": float(whole == wanted_whole),
    }
