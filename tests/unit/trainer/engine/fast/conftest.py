"""A small model whose base has 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def small_4_bit_model(tmp_path: Path) -> Any:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig  # noqa: PLC0415

    from tests.unit.trainer.engine.fast.models import small_base, with_adapter  # noqa: PLC0415

    small_base(dtype=torch.float32).save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    base = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, quantization_config=quantization, device_map={"": "cpu"}
    )
    return with_adapter(base).train()
