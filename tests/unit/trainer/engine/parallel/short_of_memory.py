"""The engine in a peer whose memory runs out in the third step, and which cannot encode rows."""

from __future__ import annotations

import sys
from typing import Any

from services.trainer.engine.__main__ import main
from services.trainer.engine.model.memory import Fit

FITS = (Fit(micro_tokens=1024, recompute=False), Fit(micro_tokens=512, recompute=False))

if __name__ == "__main__":
    import torch

    from services.trainer.engine.data.dataset import Encoder
    from services.trainer.engine.model import memory
    from services.trainer.engine.step import Stepper

    memory.ON_CPU = FITS
    del Encoder.read
    backward = Stepper.backward
    steps: list[Any] = []

    def short(stepper: Stepper, batch: Any, weight: int) -> Any:
        steps.append(batch)
        if len(steps) >= 3 and stepper.memory.fit == FITS[0]:
            raise torch.cuda.OutOfMemoryError
        return backward(stepper, batch, weight)

    Stepper.backward = short  # type: ignore[method-assign]
    sys.exit(main())
