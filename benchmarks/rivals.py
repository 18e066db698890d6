"""What the training engine is measured against, and the base of random weights that all of them tune."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

TUTORIAL_ROWS = 4
"""Rows of a micro-batch in the usual tutorial."""


def write_base(folder: Path, shape: dict[str, Any], context: int) -> None:
    """Write a Llama of random bfloat16 weights, with a tokenizer that has a token for each byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415

    special = ["<|begin|>", "<|end|>", "<|pad|>"]
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *special]
    plain = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token=special[1], pad_token=special[2], model_max_length=context
    )
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        **shape, max_position_embeddings=context, rope_theta=500_000.0, bos_token_id=words.index(special[0]),
        eos_token_id=words.index(special[1]), pad_token_id=words.index(special[2]),
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        LlamaForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)


def guide(base: Path, lengths: list[int], batch: int, warm_up: int) -> dict[str, Any]:
    """The recipe of the usual tutorial. On a CPU without its 4 bits and its optimizer, to try the calls."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig  # noqa: PLC0415

    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.bfloat16, device_map={"": device}, attn_implementation="sdpa",
        quantization_config=quantization if cuda else None,
    )  # fmt: skip
    model.config.use_cache = False
    model = prepare_model_for_kbit_training(model)  # switches gradient checkpointing on
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM"))
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(trained, cuda)
    took = []
    for rows in _steps(lengths, batch):
        began = time.perf_counter()
        for first in range(0, batch, TUTORIAL_ROWS):
            inputs = _padded(rows[first : first + TUTORIAL_ROWS], model.config.pad_token_id, device)
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = model(**inputs).loss * TUTORIAL_ROWS / batch
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if cuda:
            torch.cuda.synchronize()
        took.append((time.perf_counter() - began, sum(map(len, rows))))
    timed = took[warm_up:]
    tokens = sum(count for _, count in timed)
    return {
        "tokens_per_second": tokens / sum(seconds for seconds, _ in timed),
        "tokens_per_step": tokens / len(timed),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
    }


def _optimizer(parameters: list[Any], cuda: bool) -> Any:
    if not cuda:
        return torch.optim.AdamW(parameters, lr=2e-4)
    import bitsandbytes  # noqa: PLC0415

    return bitsandbytes.optim.PagedAdamW8bit(parameters, lr=2e-4)


def _steps(lengths: list[int], batch: int) -> Iterator[list[list[int]]]:
    """The rows of each step: token ids of letters."""
    drawn = random.Random(3)
    for first in range(0, len(lengths), batch):
        yield [[drawn.randrange(32, 90) for _ in range(length)] for length in lengths[first : first + batch]]


def _padded(rows: list[list[int]], pad_id: int, device: str) -> dict[str, Any]:
    """A micro-batch that is padded to its longest row; the loss is on all that is not padding."""
    width = max(map(len, rows))
    tokens = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    labels = tokens.masked_fill(mask == 0, -100)
    return {name: value.to(device) for name, value in
            (("input_ids", tokens), ("attention_mask", mask), ("labels", labels))}  # fmt: skip
