"""Norms, rotary positions and gated products as Liger's kernels, where it has them for the class of the base."""

from __future__ import annotations

import sys
from typing import Any

try:
    from liger_kernel.transformers.monkey_patch import (
        MODEL_TYPE_TO_APPLY_LIGER_FN,
        _apply_liger_kernel_to_instance,
    )
except ImportError:  # it needs Triton
    MODEL_TYPE_TO_APPLY_LIGER_FN = {}


class Layers:
    """Those of one base; they can be taken out again."""

    def __init__(self, base: Any) -> None:
        self.available = base.config.model_type in MODEL_TYPE_TO_APPLY_LIGER_FN
        self._base = base
        self._code = vars(sys.modules[type(base).__module__])  # some functions are replaced there, for all models
        self._before: dict[str, Any] = {}

    def put_in(self) -> None:
        self._before = dict(self._code)
        _apply_liger_kernel_to_instance(self._base, cross_entropy=False, fused_linear_cross_entropy=False)

    def take_out(self) -> None:
        self._code.update(self._before)
        for module in self._base.modules():
            module.__dict__.pop("forward", None)
