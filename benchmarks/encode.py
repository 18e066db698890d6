"""How quickly rows become tokens with a mask: `python -m benchmarks.encode [--base path/to/base]`.

Three ways make tokens of the same chat rows, in turns, in one process:

- `by turn`: as a careful trainer with the public functions of transformers: for each answer `apply_chat_template` of
  what comes before it and of what comes before and with it, and the mask is what the second has more. It checks that
  one begins with the other, and nothing else.
- `by marks`: one `apply_chat_template(..., return_assistant_tokens_mask=True)` for each row, as TRL with
  `assistant_only_loss`. Only where the template marks what the assistant writes; the benchmark puts marks into the
  demo's template. It does not compare anything with the server's prompt.
- `ours`: the encoder of the trainer, from the file, with all its checks.

The first two are given parsed rows. A row has a system message and `turns` questions and answers, joined of the demo's
texts; no two rows are alike.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from examples import tiny_base
from services.trainer.engine.data.dataset import Encoder

Row = dict[str, Any]
TURNS = (1, 2, 8, 20)
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML with marks, for bases whose template has none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="a folder; by default the tiny base of the demo")
    parser.add_argument("--template", type=Path, help="a file; by default ChatML with marks")
    parser.add_argument("--tokens", type=int, default=150_000, help="about so many tokens for each number of turns")
    parser.add_argument("--rounds", type=int, default=3, help="medians count")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.base or tiny_base.ensure())
    tokenizer.chat_template = options.template.read_text() if options.template else MARKED
    print(f"{'turns':>5} {'tokens/row':>10}  {'way':9} {'rows/s':>9} {'tokens/s':>10} {'times by turn':>14}")
    with tempfile.TemporaryDirectory() as folder:
        for turns in TURNS:
            measure(tokenizer, turns, options.tokens, options.rounds, Path(folder) / f"{turns}.jsonl")


def measure(tokenizer: Any, turns: int, tokens: int, rounds: int, path: Path) -> None:
    rows = make_rows(turns, tokens)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ways: dict[str, Callable[[], int]] = {
        "by turn": lambda: sum(map(len, (by_turn(tokenizer, row) for row in rows))),
        "ours": lambda: Encoder(tokenizer, (tokenizer.eos_token_id,), "chat").read(path, "file").tokens,
    }
    if "generation" in tokenizer.chat_template.replace("add_generation_prompt", ""):
        ways["by marks"] = lambda: sum(map(len, (by_marks(tokenizer, row) for row in rows)))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    counts: dict[str, int] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            counts[name] = way()
            seconds[name].append(time.perf_counter() - begin)
    slowest = statistics.median(seconds["by turn"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(
            f"{turns:5} {counts[name] // len(rows):10}  {name:9} {len(rows) / median:9,.0f} "
            f"{counts[name] / median:10,.0f} {slowest / median:14.1f}"
        )


def make_rows(turns: int, tokens: int) -> list[Row]:
    """Different rows with about so many tokens in all."""
    known = [json.loads(line)["messages"] for line in Path("examples/support.jsonl").read_text().splitlines()]
    asked, answered = ([one[place]["content"] for one in known] for place in (-2, -1))
    chance = random.Random(turns)

    def text(texts: list[str]) -> str:
        return f"{' '.join(chance.choice(texts) for _ in range(2))} {chance.randrange(10**6)}"

    def row() -> Row:
        messages = [{"role": "system", "content": "You are the support of a shop. Be kind and brief."}]
        for _ in range(turns):
            messages += [
                {"role": "user", "content": text(asked)},
                {"role": "assistant", "content": text(answered)},
            ]
        return {"messages": messages}

    return [row() for _ in range(max(20, tokens // (150 * turns)))]


def by_turn(tokenizer: Any, row: Row) -> list[int]:
    ids: list[int] = []
    trained: list[bool] = []
    for index, message in enumerate(row["messages"]):
        if message["role"] == "assistant":
            before = row["messages"][:index]
            read = tokenizer.apply_chat_template(before, add_generation_prompt=True)["input_ids"]
            whole = tokenizer.apply_chat_template([*before, message])["input_ids"]
            assert whole[: len(read)] == read and read[: len(ids)] == ids
            trained += [False] * (len(read) - len(ids)) + [True] * (len(whole) - len(read))
            ids = whole
    return ids


def by_marks(tokenizer: Any, row: Row) -> list[int]:
    made = tokenizer.apply_chat_template(row["messages"], return_assistant_tokens_mask=True, return_dict=True)
    assert sum(made["assistant_masks"])
    ids: list[int] = made["input_ids"]
    return ids


if __name__ == "__main__":
    main()
