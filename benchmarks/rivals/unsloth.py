"""Unsloth: nf4, packed rows, its own layers and kernels. It patches other libraries when it is imported, before which
none of them may be."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from benchmarks.rivals.work import ALPHA, RANK, Work

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def measure(work: Work, *, checkpointing: Literal["unsloth", False]) -> dict[str, Any]:
    """`checkpointing`: Unsloth's own, or none.

    Raises:
        ModuleNotFoundError: Unsloth or what it needs is not installed.
        NotImplementedError: there is no GPU, without which Unsloth cannot be imported.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(Path(tempfile.gettempdir()) / "unsloth_compiled"))
    import unsloth  # noqa: I001, PLC0415 - before TRL and transformers
    import torch  # noqa: PLC0415
    import trl  # noqa: PLC0415

    from benchmarks.rivals import sft  # noqa: PLC0415

    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        str(work.base), max_seq_length=sft.row_tokens(), dtype=torch.bfloat16, load_in_4bit=True,
        use_gradient_checkpointing=checkpointing,
    )  # fmt: skip
    model = unsloth.FastLanguageModel.get_peft_model(
        model, r=RANK, lora_alpha=ALPHA, lora_dropout=0, bias="none", target_modules=LINEARS,
        use_gradient_checkpointing=checkpointing, random_state=0,
    )  # fmt: skip
    more = {} if checkpointing else {"gradient_checkpointing": False}
    trainer = trl.SFTTrainer(
        model=model,
        args=sft.arguments(work, optim="adamw_8bit", **more),
        train_dataset=sft.dataset(work, tokenizer),
        processing_class=tokenizer,
    )
    return sft.timed(trainer, work, version=unsloth.__version__, attention=_attention())


def _attention() -> str | None:
    """Which kernel it takes for packed rows. Without xformers (whose wheel wants `libcudart.so.12`) it is slower."""
    try:
        from unsloth.utils import attention_dispatch  # noqa: PLC0415

        return str(attention_dispatch.select_attention_backend(True))
    except (ImportError, AttributeError):  # other versions have other names
        return None
