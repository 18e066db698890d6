"""Loads a base that no GPU has to hold: each weight of the decoder's layers is read onto the device, quantized there,
and divided with the others of its layer, before the next layer is read.

It is a quantizer in the sense of transformers, because that is what it lets change a weight between reading and
setting it; names, types and the classes of models stay its own. Each process reads the files, which the memory of the
host holds once for all of them.
"""

from __future__ import annotations

from typing import Any

import bitsandbytes
import torch
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from services.trainer.engine.fast.float8 import Float8Linear
from services.trainer.engine.fast.frozen import Divisible, EightBits, FourBits, FrozenLinear, Plain
from services.trainer.engine.parallel.peers import Place
from services.trainer.engine.parallel.shards import Shards
from shared.errors import InputError

METHOD = "tunestream_divided"


class Divided(QuantizationConfigMixin):  # type: ignore[misc]
    """How a base is loaded: in this quantization, for the process at this place of its group."""

    def __init__(self, quantization: str, place: Place) -> None:
        self.quant_method: Any = METHOD
        self.quantization, self.number, self.of = quantization, place.number, place.of


def shards_of(model: Any) -> Shards | None:
    """Those of a base, or of a model with an adapter on it, that was loaded so; None: it was loaded as a whole."""
    found = getattr(model, "_divided", None)
    return found if isinstance(found, Shards) else None


@register_quantizer(METHOD)
class _Quantizer(HfQuantizer):  # type: ignore[misc]
    """Reads weights as they are, and sets their shapes instead."""

    is_trainable = True

    def is_serializable(self) -> bool:
        return False

    def _process_model_before_weight_loading(self, model: Any, **_ignored: Any) -> None:
        skipped = self.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
        layers = [
            [name for name in names if not any(part in skipped for part in (name, name.rsplit(".", 1)[-1]))]
            for names in linears_of_layers(model)
        ]
        if not layers or not all(layers):
            raise InputError(
                "unsupported_base",
                "the base has no list of decoder layers with linear layers in them, so its weights cannot be divided "
                "among GPUs: choose one that a single GPU holds",
                "model",
            )
        self.layers = layers
        self.layer_of = {name: number for number, names in enumerate(layers) for name in names}
        self.read: dict[str, Divisible] = {}
        self.shards = Shards(self.quantization_config.number, self.quantization_config.of, len(layers))
        for name in self.layer_of:
            model.get_submodule(name).__class__ = FrozenLinear

    def param_needs_quantization(self, model: Any, param_name: str, **_ignored: Any) -> bool:
        name, _, last = param_name.rpartition(".")
        return last == "weight" and name in self.layer_of

    def param_element_size(self, model: Any, param_name: str, param: Any) -> float:
        """For what transformers allocates in advance."""
        size = float(param.element_size())
        return size / self.quantization_config.of if self.param_needs_quantization(model, param_name) else size

    def get_quantize_ops(self) -> Any:
        return _Take(self)

    def take(self, model: Any, name: str, value: Any) -> Any:
        """Keep what this process has of a weight. Returns what stands for it in its module."""
        layer = model.get_submodule(name)
        self.read[name] = quantized(value, layer, self.quantization_config.quantization)
        number = self.layer_of[name]
        names = self.layers[number]
        if all(each in self.read for each in names):
            weights = self.shards.divide(number, [self.read.pop(each) for each in names])
            for each, weight in zip(names, weights, strict=True):
                model.get_submodule(each).frozen_weight = weight
        # An adapter beside packed weights is not cast to their type, and must begin with the same numbers here.
        dtype = torch.uint8 if self.quantization_config.quantization == "nf4" else value.dtype
        stand_in = torch.zeros(1, dtype=dtype, device=value.device).expand(value.shape)
        return torch.nn.Parameter(stand_in, requires_grad=False)

    def _process_model_after_weight_loading(self, model: Any, **_ignored: Any) -> Any:
        if self.read:
            raise InputError("unsupported_base", f"the base lacks weights of the layers of {min(self.read)}", "model")
        self.remove_quantization_config(model)
        model._divided = self.shards
        return model


class _Take(ConversionOps):  # type: ignore[misc]
    def __init__(self, quantizer: _Quantizer) -> None:
        self.quantizer = quantizer

    def convert(self, input_dict: dict[str, Any], model: Any = None, **_ignored: Any) -> dict[str, Any]:
        found = {}
        for name, values in input_dict.items():
            value = values[0] if isinstance(values, list) else values
            found[name] = self.quantizer.take(model, name.rpartition(".")[0], value)
        return found


def linears_of_layers(model: Any) -> list[list[str]]:
    """The names of the linear layers in each layer of the text decoder; empty if it has no list of layers."""
    decoder, wanted = model.get_decoder(), model.config.get_text_config().num_hidden_layers
    lists = (module for module in decoder.modules() if isinstance(module, torch.nn.ModuleList))
    stack = next((module for module in lists if len(module) == wanted), ())
    names = {id(module): name for name, module in model.named_modules()}
    return [[names[id(module)] for module in layer.modules() if type(module) is torch.nn.Linear] for layer in stack]


def quantized(value: Any, layer: Any, quantization: str) -> Divisible:
    """A weight, (outputs, inputs), of a linear `layer`, in this quantization."""
    if quantization == "nf4":
        packed = bitsandbytes.nn.Params4bit(value, requires_grad=False, quant_type="nf4", compress_statistics=True)
        packed = packed.to(value.device)
        return FourBits(packed.data, packed.quant_state)
    if quantization == "fp8" and Float8Linear.takes(layer):
        return EightBits.of(Float8Linear(layer, value))
    return Plain(value)
