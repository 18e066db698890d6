"""The model in training: the frozen base, quantized to 4 bits or not, with a LoRA adapter on top. Also writes the
adapter to files."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig

from services.trainer.domain.auto import Chosen
from services.trainer.domain.layers import targets_of
from services.trainer.domain.plan import Plan
from services.trainer.engine.model.base import BaseFacts, loading
from services.trainer.engine.model.compute import Compute, choose_compute
from services.trainer.engine.model.targets import targets_for_peft
from services.trainer.engine.parallel.loading import Divided
from services.trainer.engine.parallel.peers import Place
from shared.base import hub


def load(
    plan: Plan,
    facts: BaseFacts,
    chosen: Chosen,
    device: Any,
    compute: Compute | None = None,
    divided: Place | None = None,
) -> Any:
    """The base with a fresh adapter on `device`; only the adapter's float32 parameters are trainable. `compute`: None:
    what `choose_compute` says. `divided`: the place of this process in its group, if the base is divided among them;
    `shards_of` then finds its part.

    QLoRA (arXiv 2305.14314): nf4 with double quantization, dequantized per product into the compute type.

    Raises:
        InputError: the weights are missing or not safetensors.
        TransientError: the hub does not answer.
    """
    dtype = (compute or choose_compute(facts.stored, device)).dtype
    quantization: Any = None
    if divided is not None:
        quantization = Divided(chosen.quantization.value, divided)
    elif chosen.quantization.value == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    silent = hub.is_silent(plan.base.location)
    with loading(plan, silent=silent):
        base = facts.model_class.from_pretrained(
            plan.base.location,
            dtype=dtype,
            quantization_config=quantization,
            device_map={"": str(device)},
            attn_implementation=facts.attention.implementation,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=silent,
        )
    base.requires_grad_(False)
    base.config.use_cache = False
    torch.manual_seed(plan.seed)  # for the adapter's initial weights
    model = get_peft_model(
        base,
        LoraConfig(
            r=chosen.lora_r.value,
            lora_alpha=chosen.lora_alpha.value,
            use_rslora=chosen.use_rslora.value,
            lora_dropout=chosen.lora_dropout.value,
            target_modules=targets_for_peft(plan.lora, facts.layers),
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )
    for parameter in trainable(model).values():
        parameter.data = parameter.data.float()
    changed = {name.removeprefix("base_model.model.").split(".lora_")[0] for name in trainable(model)}
    if changed != set(targets_of(plan.lora, facts.linears)):
        raise RuntimeError("PEFT has put the adapter on other layers than it was told")
    return model


def trainable(model: Any) -> dict[str, Any]:
    """The parameters that are trained, by name, in the model's own order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def set_training(model: Any, training: bool) -> None:
    """Switch dropout and recomputation on or off.

    bitsandbytes' 4-bit layers always stay in training mode: in evaluation mode on some CPUs they repack their weights
    for inference, after which they cannot be trained.
    """
    model.train(training)
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.train()


def adapter_parameters(model: Any) -> dict[str, Any]:
    """The tensors of the adapter themselves, under PEFT's names for its files.

    PEFT's own function for that takes the state of the whole base first, which packs each layer of 4 bits.
    """
    return {name.replace(".default", ""): parameter.detach() for name, parameter in trainable(model).items()}


def adapter_tensors(model: Any) -> dict[str, Any]:
    """A copy of the adapter on the CPU, under PEFT's names."""
    parameters = adapter_parameters(model)
    return {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in parameters.items()}


def load_adapter_tensors(model: Any, tensors: dict[str, Any]) -> None:
    """Put what `adapter_tensors` returned into the model."""
    wrong = set_peft_model_state_dict(model, tensors).unexpected_keys
    if wrong:
        raise ValueError(f"the adapter holds {len(wrong)} tensors that this model does not have")


def save_adapter(model: Any, folder: Path, plan: Plan, base: BaseFacts) -> None:
    """Write the adapter in PEFT's format, with the tokenizer and the generation settings that it was trained for."""
    folder.mkdir(parents=True)
    save_file(adapter_tensors(model), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _served_config(model, plan).save_pretrained(str(folder))
    base.tokenizer.save_pretrained(str(folder))
    base.generation.to_json_file(folder / "generation_config.json")


def adapter_config(model: Any, plan: Plan) -> bytes:
    """The bytes of the `adapter_config.json` that `save_adapter` writes."""
    with tempfile.TemporaryDirectory() as folder:
        _served_config(model, plan).save_pretrained(folder)
        return (Path(folder) / "adapter_config.json").read_bytes()


def _served_config(model: Any, plan: Plan) -> Any:
    config = copy.copy(model.peft_config["default"])
    config.base_model_name_or_path = plan.base.id  # instead of the path on this machine
    config.inference_mode = True
    # Sorted, because a set has no order, and the digest of the file must not depend on one.
    config.target_modules = sorted(config.target_modules)
    return config
