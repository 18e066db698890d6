"""TRL at its best settings: nf4, packed rows, attention within documents, Liger's layers.

TRL wants the package flash-attn for packed rows, of which there is no wheel. torch's own kernel does the same, and is
given the ends of documents that TRL's collator computes.
"""

from __future__ import annotations

import inspect
import os
from typing import Any

import torch

from benchmarks.rivals import sft
from benchmarks.rivals.work import ALPHA, RANK, Work

VARLEN = "benchmark_varlen"


def measure(work: Work, *, checkpointing: bool) -> dict[str, Any]:
    """On a CPU it goes without its 4 bits, torch's kernel and Liger, to try the calls.

    Raises:
        ModuleNotFoundError: TRL or what it needs is not installed.
    """
    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, which TRL's loss is written in
    import trl  # noqa: PLC0415
    from peft import LoraConfig  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig  # noqa: PLC0415

    if cuda:
        import liger_kernel  # noqa: F401, PLC0415

        _register()
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        work.base, dtype=torch.bfloat16, device_map={"": "cuda" if cuda else "cpu"},
        attn_implementation=VARLEN if cuda else "sdpa", quantization_config=quantization if cuda else None,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(work.base)
    trainer = trl.SFTTrainer(
        model=model,
        args=sft.arguments(work, gradient_checkpointing=checkpointing, use_liger_kernel=cuda),
        train_dataset=sft.dataset(work, tokenizer),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    return sft.timed(trainer, work, version=trl.__version__)


def _register() -> None:
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415
    from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415

    windows = "window_size" in inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = {"window_size": (-1, 0)} if windows else {"is_causal": True}

    def attend(
        _module: Any, query: Any, key: Any, value: Any, _mask: Any, cu_seq_lens_q: Any = None,
        max_length_q: int | None = None, **_: Any,
    ) -> tuple[Any, None]:  # fmt: skip
        groups = query.shape[1] // key.shape[1]
        q, k, v = (each.transpose(1, 2)[0].to(value.dtype) for each in (query, key, value))
        if groups > 1:
            k, v = (each.repeat_interleave(groups, dim=1) for each in (k, v))
        q, k, v = (each.contiguous() for each in (q, k, v))
        return varlen_attn(q, k, v, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, **causal)[None], None

    AttentionInterface.register(VARLEN, attend)
    AttentionMaskInterface.register(VARLEN, lambda *_, **__: None)
