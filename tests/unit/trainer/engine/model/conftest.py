"""Tiny random models of other families, with the micro base's tokenizer and template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.data.micro_base import make_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
SEES: dict[str, Any] = {"image_token_id": 390, "video_token_id": 391}
EYE: dict[str, Any] = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
MakeModel = Callable[..., Path]


def multimodal(family: str) -> Any:
    """The config of a base that has eyes, too."""
    import transformers  # noqa: PLC0415  only tests with torch ask for it

    if family == "gemma3":
        eye = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        return transformers.Gemma3Config(
            text_config={**SIZES, "sliding_window": 8},
            vision_config={**eye, "image_size": 28, "patch_size": 14},
            mm_tokens_per_image=4,
            image_token_index=390,
            boi_token_index=391,
            eoi_token_index=392,
        )
    if family == "qwen2_5_vl":
        turning = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
        return transformers.Qwen2_5_VLConfig(
            text_config={**SIZES, "rope_parameters": turning},
            vision_config={**EYE, "fullatt_block_indexes": [0]},
            vision_start_token_id=392,
            vision_end_token_id=393,
            **SEES,
        )
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
    linear |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
    turning = {"rope_type": "default", "mrope_section": [1, 0, 0], "rope_theta": 10000.0}
    turning |= {"partial_rotary_factor": 0.25, "mrope_interleaved": True}
    layers = {"layer_types": ["linear_attention", "full_attention"], "rope_parameters": turning}
    return transformers.Qwen3_5Config(
        text_config={**SIZES, **linear, **layers},
        vision_config={**EYE, "deepstack_visual_indexes": [], "num_position_embeddings": 16},
        vision_start_token_id=392,
        vision_end_token_id=393,
        **SEES,
    )


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """A folder with random weights of transformers' class `name` for `config`, and a tokenizer. Matrices are `scale`
    times their usual size, so that attention is not uniform."""

    def make(name: str, config: Any, *, scale: float = 1.0) -> Path:
        import torch  # noqa: PLC0415
        import transformers  # noqa: PLC0415

        torch.manual_seed(0)
        model = getattr(transformers, name)(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data *= scale
        folder = tmp_path / name
        model.save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        return folder

    return make
