"""Counts how often the process asks for a number of a tensor: a GPU would have to compute it first, and run dry."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

WAITING = frozenset({"_local_scalar_dense", "is_nonzero", "nonzero", "equal"})


class Waits(TorchDispatchMode):
    """`asked`: what was called, within the block."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function.overloadpacket.__name__ in WAITING:
            self.asked.append(str(function))
        return function(*arguments, **(options or {}))
