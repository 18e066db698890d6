"""Reads the spec of a synthesis and its seeds."""

from __future__ import annotations

from typing import Any

from services.ingest.domain.synthesis.plan import Seed
from services.ingest.domain.synthesis.spec import SynthesisSpec
from services.ingest.job_settings import parse
from shared import strict_json
from shared.errors import InputError

CODE = "invalid_synthesis"
MAX_SEEDS = 1000
MAX_SEED_BYTES = 2**22
HINT = "`task: …`, `scenarios: […]`, `count: 100`, `model: …`, `endpoint: {base_url: …}` and `budget: {tokens: …}`"


def parse_spec(text: bytes, where: str) -> SynthesisSpec:
    """Parse the spec of a synthesis. `where` is its name in an error.

    Raises:
        InputError: names the field and what is wrong with it.
    """
    return parse(SynthesisSpec, text, where, CODE, HINT)


def parse_seeds(content: bytes, where: str) -> tuple[Seed, ...]:
    """The rows that show the style, in one of two forms: `messages`, of which the last message of the user and the last
    of the assistant count, or `prompt` and `completion`.

    Raises:
        InputError: names the line and what is wrong with it.
    """
    if len(content) > MAX_SEED_BYTES:
        raise InputError(CODE, f"{where}: more than {MAX_SEED_BYTES // 2**20} MiB; a few rows are enough.", "seeds")
    seeds = []
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            seeds.append(_seed(line, f"{where} line {number}"))
    if not seeds or len(seeds) > MAX_SEEDS:
        raise InputError(CODE, f"{where}: {len(seeds):,} rows; write 1 to {MAX_SEEDS:,}.", "seeds")
    return tuple(seeds)


def _seed(line: bytes, where: str) -> Seed:
    try:
        row = strict_json.loads(line)
    except strict_json.InvalidJson as error:
        raise InputError(CODE, f"{where}: {error}.", "seeds") from None
    if not isinstance(row, dict):
        raise InputError(CODE, f"{where}: write one JSON object per line.", "seeds")
    if "messages" in row:
        query, answer = _last(row["messages"], "user"), _last(row["messages"], "assistant")
    else:
        query, answer = row.get("prompt"), row.get("completion")
    for text in (query, answer):
        if not isinstance(text, str) or not text.strip():
            remedy = "write messages with a text of the user and one of the assistant, or prompt and completion"
            raise InputError(CODE, f"{where}: it has no query or no answer; {remedy}.", "seeds")
    return Seed(str(query).strip(), str(answer).strip())


def _last(messages: Any, role: str) -> Any:
    said = [m for m in messages if isinstance(m, dict) and m.get("role") == role] if isinstance(messages, list) else []
    return said[-1].get("content") if said else None
