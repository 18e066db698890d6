"""A copy of the state of a running training in the memory of the host, made without stopping the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from services.trainer.engine import checkpoints
from services.trainer.engine.checkpoints import Tensors


@dataclass(frozen=True)
class Snapshot:
    """The tensors of a checkpoint by file, as they were when it was taken. They may be read after `wait`."""

    tensors: dict[str, Tensors]
    _copied: Any = None

    def wait(self) -> None:
        """Wait until everything is copied."""
        if self._copied is not None:
            self._copied.synchronize()


class Snapshots:
    """Takes snapshots of one run. They share their memory: the one before must not be needed any more.

    On a GPU the copy runs beside the forward and backward pass of the next step, which only read the adapter; the
    optimizer, which changes it, is held back on the GPU until the copy is made. That needs no memory of the GPU. The
    memory of the host is pinned, because only then the copy is asynchronous.
    """

    def __init__(self, model: Any, optimizer: Any, device: Any) -> None:
        self._model = model
        self._optimizer = optimizer
        self._device = device
        self._buffers: dict[tuple[str, str], Any] = {}
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._copied: Any = None
        optimizer.register_step_pre_hook(lambda *_: self._hold_back())

    def take(self) -> Snapshot:
        """Begin to copy the state as it is now, and return at once (on a CPU: when it is copied)."""
        live = checkpoints.live(self._model, self._optimizer)
        if self._stream is None:
            tensors = self._copy(live)
        else:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                tensors = self._copy(live)
                self._copied = self._stream.record_event()
        return Snapshot({**tensors, "random": checkpoints.capture_random()}, self._copied)

    def _copy(self, live: dict[str, Tensors]) -> dict[str, Tensors]:
        tensors: dict[str, Tensors] = {}
        for kind, held in live.items():
            tensors[kind] = {}
            for name, tensor in held.items():
                tensors[kind][name] = self._buffer(kind, name, tensor).copy_(tensor, non_blocking=True)
        return tensors

    def _buffer(self, kind: str, name: str, tensor: Any) -> Any:
        buffer = self._buffers.get((kind, name))
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = self._buffers[kind, name] = _host_memory(tensor, pinned=self._stream is not None)
        return buffer

    def _hold_back(self) -> None:
        """Let what the GPU does from here on wait for the copy."""
        if self._copied is not None:
            torch.cuda.current_stream(self._device).wait_event(self._copied)
            self._copied = None


def _host_memory(tensor: Any, *, pinned: bool) -> Any:
    if pinned:
        try:
            return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        except RuntimeError:  # the system limits how much may be pinned; then the copy takes longer
            pass
    return torch.empty(tensor.shape, dtype=tensor.dtype)
