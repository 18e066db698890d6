"""Whether FlashAttention 4 pays for its compilation in a run."""

from __future__ import annotations

from services.trainer.domain.auto import Choice

SECONDS, SHARE, HEAD = 20.0, 0.035, 128
"""What importing and compiling it takes; the share of a step's time that it saves, by the times of both kernels alone;
and the size of the heads for which it does: with heads of 64 it was not faster than torch's. On an H100, 8B shape."""
CAPABILITY = (9, 0)
"""The first compute capability that it is made for: NVIDIA's Hopper generation."""


def choose(
    capability: tuple[int, int],
    head: int,
    asked: bool | None,
    *,
    packed: bool,
    graphs: bool,
    seconds: float | None,
) -> Choice[bool]:
    """`head`: numbers of one. `asked`: by a switch; None: it is chosen. `packed`: the base attends with a kernel for
    packed rows. `graphs`: small kernels are recorded. `seconds`: of all steps; None: that is not known."""
    if not packed:
        return Choice(False, "the base does not attend with a kernel for packed rows")
    if capability < CAPABILITY:
        return Choice(False, "it is made for GPUs of compute capability 9.0 and newer")
    if asked is not None:
        return Choice(asked, "as set")
    if graphs or head != HEAD:
        return Choice(False, f"it is faster than torch's kernel only for large bases, with heads of {HEAD}")
    if seconds is None:
        return Choice(False, "how long the run takes is not known")
    saved = SHARE * seconds
    return Choice(saved > SECONDS, f"compiling it takes {SECONDS:.0f} s, and saves {saved:.0f} s")
