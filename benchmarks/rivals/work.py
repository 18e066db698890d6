"""The work that all are measured on: a base, documents of lognormal lengths, and steps of so many of them."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST = 2048
MEAN = 412
"""Tokens of a document, at most and about on average."""
SPARE = 1.5
"""So many times the documents of our steps are there for those who pack them into rows themselves, and lose a few."""
PROMPT = 8
"""So many of a row's tokens are its prompt; the rest is trained on."""
RANK, ALPHA, RATE = 16, 32, 2e-4


@dataclass(frozen=True)
class Work:
    """`folder` holds `rows.jsonl`, what our engine is given, for one step more than are counted, and `documents.jsonl`:
    these and some more. `batch`: documents per step. The `steps` after the `warm_up` are timed."""

    base: Path
    folder: Path
    batch: int
    warm_up: int
    steps: int

    @property
    def rows(self) -> Path:
        return self.folder / "rows.jsonl"

    def lengths(self) -> list[int]:
        """Of all documents, in tokens, their end among them."""
        drawn = random.Random(1)
        count = math.ceil(self.batch * (self.warm_up + self.steps + 1) * SPARE)
        return [int(min(LONGEST, max(48, math.exp(drawn.gauss(5.7, 0.8))))) for _ in range(count)]

    def write(self) -> None:
        """Write both files of documents, as prompts and completions of random words."""
        from transformers import AutoTokenizer  # noqa: PLC0415

        words, drawn = words_of(AutoTokenizer.from_pretrained(self.base)), random.Random(2)
        lines = []
        for length in self.lengths():  # the end is a token, too
            text = drawn.choices(words, k=length - 1)
            row = {"prompt": "".join(text[:PROMPT]), "completion": "".join(text[PROMPT:])}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        self.rows.write_text("".join(lines[: self.batch * (self.warm_up + self.steps + 1)]))
        (self.folder / "documents.jsonl").write_text("".join(lines))

    def documents(self, tokenizer: Any) -> list[list[int]]:
        """The token ids of all documents."""
        rows = map(json.loads, (self.folder / "documents.jsonl").read_text().splitlines())
        texts = [row["prompt"] + row["completion"] for row in rows]
        return [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def words_of(tokenizer: Any) -> list[str]:
    """Texts that are one token each, also beside each other.

    Raises:
        ValueError: the tokenizer has no such words.
    """
    every = tokenizer.batch_decode([[number] for number in range(min(len(tokenizer), 20_000))])
    for kind in (r" [a-z]{2,}", r"[A-Za-z]"):
        words = sorted({text for text in every if re.fullmatch(kind, text)})
        words = [word for word in words if len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1]
        many = random.Random(0).choices(words, k=2000) if len(words) >= 20 else []
        if many and len(tokenizer("".join(many), add_special_tokens=False)["input_ids"]) == len(many):
            return words
    raise ValueError("the tokenizer of the base has no words of one token: choose another base")


def write_base(folder: Path, shape: dict[str, Any]) -> None:
    """Write a Llama of random bfloat16 weights, with a tokenizer that has a token for each byte. The folder is complete
    or absent."""
    import torch  # noqa: PLC0415 - nothing is imported here that Unsloth patches, or that is slow
    from safetensors.torch import save_file  # noqa: PLC0415
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415

    special = ["<|begin|>", "<|end|>", "<|pad|>"]
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *special]
    plain = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens(special)
    context = 8192  # no rival may need more for its rows
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token=special[0], eos_token=special[1], pad_token=special[2],
        model_max_length=context,
    )  # fmt: skip
    tokenizer.chat_template = f"{{% for m in messages %}}{{{{ m.content }}}}{special[1]}{{% endfor %}}"
    building = folder.with_name(f"{folder.name}.part")
    tokenizer.save_pretrained(building)
    config = LlamaConfig(
        **shape, max_position_embeddings=context, rope_theta=500_000.0, bos_token_id=words.index(special[0]),
        eos_token_id=words.index(special[1]), pad_token_id=words.index(special[2]),
    )  # fmt: skip
    config.dtype = torch.bfloat16
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(building)
    model.generation_config.save_pretrained(building)
    files: dict[str, list[str]] = {}
    for name in dict(model.named_parameters()):  # of what is tied, the first
        file = f"model-{name.split('layers.')[-1].split('.')[0]:0>5}.safetensors"
        files.setdefault(file, []).append(name)
    generator = torch.Generator("cuda" if torch.cuda.is_available() else "cpu").manual_seed(0)
    for file, names in files.items():  # a layer at a time, because a device need not hold them all
        weights = {name: _random(model.get_parameter(name), config.initializer_range, generator) for name in names}
        save_file(weights, building / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, names in files.items() for name in names}}
    (building / "model.safetensors.index.json").write_text(json.dumps(index))
    building.rename(folder)


def _random(like: Any, deviation: float, generator: Any) -> Any:
    """A weight as Llama initializes it: those of norms are one."""
    import torch  # noqa: PLC0415

    if like.dim() == 1:
        return torch.ones(like.shape, dtype=torch.bfloat16)
    made = torch.empty(like.shape, dtype=torch.bfloat16, device=generator.device)
    return made.normal_(0.0, deviation, generator=generator).cpu()
