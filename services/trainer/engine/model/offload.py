"""Gradient checkpointing whose inputs wait in the memory of the host: where all layers are recomputed, nothing of a
layer stays on the GPU between its forward and its backward pass.

The copies run on a stream of their own, beside the computation: out of the GPU while the layer itself computes, and
back while the layer above goes backward. The tensor that was given last stays where it is: it is needed first. A part
of a layer that goes backward by itself, from its own input, gives that to `keep`.

Memory is never handed to the allocator while a copy uses it: the computing stream waits for the copy before the last
reference goes, which costs nothing, because by then the copy is over. `record_stream` would do the same only once the
process has noticed that the copy is over, and a process that launches far ahead of its GPU notices late: until then it
takes new memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint


class Offload:
    """A checkpoint function for the layers of one model on one device. On a CPU the copies are plain ones."""

    def __init__(self, device: Any, allocate: Callable[[int], Any] | None = None) -> None:
        """`allocate`: makes a buffer of so many bytes, for tests; by default one that the GPU reads by itself."""
        self.refused: str | None = None
        """Why the inputs stay on the GPU; None: they do not."""
        self._copies = _Copies(device)
        self.buffers = Buffers(allocate or partial(torch.empty, dtype=torch.uint8, pin_memory=device.type == "cuda"))
        self._newest: Callable[[], _Kept | None] = lambda: None
        self._again = False
        """Whether a function is called for the second time, which is in the backward pass."""

    def keep(self, tensor: Any) -> Callable[[], Any]:
        """Keep a tensor until the backward pass, and return what gives it back then."""
        if self._again:  # for a graph that nobody goes through: the first one is there
            return lambda: tensor
        kept = self._keep(tensor)
        return kept.take if isinstance(kept, _Kept) else lambda: tensor

    def checkpoint(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """As `torch.utils.checkpoint.checkpoint`, not reentrant. What has a gradient among the arguments is kept by the
        host, also where a `partial` holds it by name; all others stay as they are.

        Raises:
            RuntimeError: the function changes what it was given in place, so it cannot be done again.
        """
        if not torch.is_grad_enabled() or self.refused is not None:
            return checkpoint(function, *arguments, use_reentrant=False, **options)
        function, named = _taken_out(function)
        given = [each for each in (*named, *arguments) if _has_gradient(each)]
        versions = [tensor._version for tensor in given]
        pointers = {tensor.data_ptr() for tensor in given}

        def pack(tensor: Any) -> Any:
            return self._keep(tensor) if tensor.data_ptr() in pointers and tensor.numel() else tensor

        calls = 0

        def call(*values: Any, **others: Any) -> Any:
            nonlocal calls
            before, self._again, calls = self._again, calls > 0, calls + 1
            try:
                return function(*values, **others)
            finally:  # also where torch ends a second call early, because it has all that it needs
                self._again = before

        with saved_tensors_hooks(pack, _unpack):
            result = checkpoint(call, *named, *arguments, use_reentrant=False, **options)
        if versions != [tensor._version for tensor in given]:
            raise RuntimeError(f"{function} changes its input in place, so it cannot be computed again")
        return result

    def _keep(self, tensor: Any) -> Any:
        """Begin to copy a tensor to the host, and let go of the one before."""
        try:
            buffer = None if self.refused is not None else self.buffers.take(tensor.numel() * tensor.element_size())
        except RuntimeError as error:  # the host has no memory that can be pinned
            self.refused = f"the host gives no pinned memory: {str(error).splitlines()[0][:200]}"
            buffer = None
        if buffer is None:
            return tensor
        before = self._newest()
        if before is not None:
            before.leave()
        kept = _Kept(tensor.detach(), buffer, self.buffers, self._copies, self._newest)
        self._newest = weakref.ref(kept)
        return kept


class Buffers:
    """Memory of the host that is used again in each step: pinning it takes longer than a layer computes. All buffers
    have one size, a power of two, which grows with what is asked for."""

    def __init__(self, allocate: Callable[[int], Any]) -> None:
        self._allocate = allocate
        self._free: list[Any] = []
        self._size = 0
        self.allocated = 0
        """How many were made."""

    def take(self, size: int) -> Any:
        """A buffer of at least so many bytes."""
        if size > self._size:
            self._size = 1 << (size - 1).bit_length()  # torch pins no other sizes
            self._free.clear()
        if self._free:
            return self._free.pop()
        made = self._allocate(self._size)
        self.allocated += 1
        return made

    def give(self, buffer: Any) -> None:
        """What is copied next into it comes after what was copied last, since all copies are made on one stream."""
        if buffer.numel() == self._size:
            self._free.append(buffer)


class _Copies:
    """Makes copies in the order in which they are asked for, beside what the device computes."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def computing(self) -> Any:
        """The stream that computes, in this thread; None on a CPU."""
        return None if self._side is None else torch.cuda.current_stream(self._device)

    def copy(self, source: Any, target: Any) -> Any:
        """Copy after what was launched before, and return the event of its end; None on a CPU."""
        if self._side is None:
            target.copy_(source)
            return None
        self._side.wait_stream(self.computing())
        with torch.cuda.stream(self._side):
            target.copy_(source, non_blocking=True)
            return self._side.record_event()


class _Kept:
    """What a layer was given: in a buffer of the host, and on the device as long as it is the newest one, and again
    from when it is fetched until it is taken."""

    def __init__(
        self, tensor: Any, buffer: Any, buffers: Buffers, copies: _Copies, before: Callable[[], _Kept | None]
    ) -> None:
        """`before`: what was kept before it, and so is wanted after it, if it still is."""
        self._buffer, self._buffers, self._copies, self._before = buffer, buffers, copies, before
        self._here: Any = tensor
        self._device = tensor.device
        self._stream = copies.computing()
        self._host = buffer[: tensor.numel() * tensor.element_size()].view(tensor.dtype).view(tensor.shape)
        self._copied = copies.copy(tensor, self._host)

    def leave(self) -> None:
        """Give back the memory of the device."""
        if self._here is not None:
            self._wait()
            self._here = None

    def fetch(self) -> None:
        """Begin to copy it back. The memory is that of the computing stream, so the copy comes after all that was
        launched there before."""
        if self._here is None:
            self._stream = self._copies.computing()
            self._here = torch.empty(self._host.shape, dtype=self._host.dtype, device=self._device)
            self._copied = self._copies.copy(self._host, self._here)

    def take(self) -> Any:
        """The tensor on the device; the one that is wanted next is on its way from here on."""
        self.fetch()
        self._wait()
        tensor, self._here = self._here, None
        if (before := self._before()) is not None:
            before.fetch()
        return tensor

    def _wait(self) -> None:
        if self._copied is not None:
            self._stream.wait_event(self._copied)

    def __del__(self) -> None:
        self.leave()  # what was fetched and not taken, as after an error, may still be written to
        self._buffers.give(self._buffer)


def _unpack(kept: Any) -> Any:
    if not isinstance(kept, _Kept):
        return kept
    with torch.no_grad():
        return kept.take()


def _has_gradient(value: Any) -> bool:
    return bool(torch.is_tensor(value) and value.requires_grad and value.is_floating_point())


def _taken_out(function: Any) -> tuple[Any, list[Any]]:
    """The function without the tensors that a `partial` holds by name, which it is then given first; and these."""
    if not isinstance(function, partial):
        return function, []
    moved = {name: value for name, value in function.keywords.items() if _has_gradient(value)}
    if not moved:
        return function, []
    others = {name: value for name, value in function.keywords.items() if name not in moved}
    rest, names = partial(function.func, *function.args, **others), tuple(moved)

    def call(*values: Any, **options: Any) -> Any:
        return rest(*values[len(names) :], **dict(zip(names, values, strict=False)), **options)

    return call, list(moved.values())


def host_free() -> int:
    """Bytes of the host's memory that this process may still take, by the kernel and by the limit of its container."""
    found = {line.split(":")[0]: line.split()[1] for line in _lines("/proc/meminfo")}
    free = int(found["MemAvailable"]) * 1024 if "MemAvailable" in found else 0
    limit, used = _lines("/sys/fs/cgroup/memory.max"), _lines("/sys/fs/cgroup/memory.current")
    if limit and used and limit[0].isdigit():
        stated = dict(line.split() for line in _lines("/sys/fs/cgroup/memory.stat"))
        cached = int(stated.get("active_file", 0)) + int(stated.get("inactive_file", 0))  # is given up when needed
        free = min(free, max(0, int(limit[0]) - int(used[0]) + cached))
    return free


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
