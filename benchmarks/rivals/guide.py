"""The recipe of the usual tutorial, in plain transformers and PEFT: padded micro-batches and gradient checkpointing."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.rivals.clock import Clock
from benchmarks.rivals.work import ALPHA, RANK, RATE, Work

MICRO_ROWS = 4
"""Rows of a micro-batch in the usual tutorial."""


def measure(work: Work) -> dict[str, Any]:
    """On a CPU it goes without its 4 bits and its optimizer, to try the calls."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig  # noqa: PLC0415

    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        work.base, dtype=torch.bfloat16, device_map={"": device}, attn_implementation="sdpa",
        quantization_config=quantization if cuda else None,
    )  # fmt: skip
    model.config.use_cache = False
    model = prepare_model_for_kbit_training(model)  # switches gradient checkpointing on
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, task_type="CAUSAL_LM"))
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(trained, cuda)
    tokenizer = AutoTokenizer.from_pretrained(work.base)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    documents, clock = work.documents(tokenizer), Clock(work.warm_up, work.steps)
    for step in range(work.warm_up + work.steps):
        rows = documents[step * work.batch : (step + 1) * work.batch]
        for first in range(0, len(rows), MICRO_ROWS):
            micro = rows[first : first + MICRO_ROWS]
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = model(**_padded(micro, pad_id, device)).loss * len(micro) / len(rows)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step(sum(map(len, rows)))
    return clock.figures()


def _optimizer(parameters: list[Any], cuda: bool) -> Any:
    if not cuda:
        return torch.optim.AdamW(parameters, lr=RATE)
    import bitsandbytes  # noqa: PLC0415

    return bitsandbytes.optim.PagedAdamW8bit(parameters, lr=RATE)


def _padded(rows: list[list[int]], pad_id: int, device: str) -> dict[str, Any]:
    """A micro-batch that is padded to its longest row; the loss is on all that is not padding."""
    width = max(map(len, rows))
    tokens = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    labels = tokens.masked_fill(mask == 0, -100)
    return {name: value.to(device) for name, value in
            (("input_ids", tokens), ("attention_mask", mask), ("labels", labels))}  # fmt: skip
