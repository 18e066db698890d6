"""What a user writes on the command line: `learning_rate_multiplier=0.2..5:log`, `r=8,16`, `seconds=600`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cli.terminal import CliError

RANGE, LOG = "..", ":log"


def space(words: Sequence[str]) -> dict[str, Any] | None:
    """The search space of `--search` options; None: the usual one.

    Raises:
        CliError: an option has another form.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, values = _pair(word, "--search", "--search r=8,16 or --search n_epochs=1..5")
        if RANGE in values:
            ends, log = (values.removesuffix(LOG), True) if values.endswith(LOG) else (values, False)
            low, _, high = ends.partition(RANGE)
            found[name] = {"low": _number(low, word), "high": _number(high, word)} | ({"log": True} if log else {})
        else:
            found[name] = [_number(value, word) for value in values.split(",")]
    return found or None


def budget(words: Sequence[str]) -> dict[str, int | float] | None:
    """The budget of `--budget` options; None: no limit.

    Raises:
        CliError: an option has another form.
    """
    found = dict[str, int | float]()
    for word in words:
        name, value = _pair(word, "--budget", "--budget seconds=600 or --budget tokens=2000000")
        found[name] = _number(value, word)
    return found or None


def _pair(word: str, option: str, example: str) -> tuple[str, str]:
    name, equals, values = word.partition("=")
    if not equals or not name.strip() or not values.strip():
        raise CliError(f"{option} {word}: write name=values", f"for example {example}")
    return name.strip(), values.strip()


def _number(text: str, word: str) -> int | float:
    text = text.strip().replace("_", "")
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise CliError(
            f"{word}: {text!r} is no number", "write a list such as 8,16, or a range such as 0.2..5 or 0.2..5:log"
        ) from None
