"""The curves of the losses, as a page of any colour shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.torch  # where matplotlib is


def test_the_picture_has_no_ground_of_its_own(tmp_path: Path) -> None:
    from matplotlib.image import imread  # noqa: PLC0415

    from services.trainer.engine.messages import StepRow  # noqa: PLC0415
    from services.trainer.engine.report.curves import draw  # noqa: PLC0415

    rows = [
        StepRow(
            step=step, total_steps=9, epoch=1, learning_rate=1e-4, tokens=8, tokens_per_second=1, train_loss=3 / step
        )
        for step in range(1, 10)
    ]
    draw(rows, 4, tmp_path / "curves.png")
    picture = imread(tmp_path / "curves.png")
    assert picture[0, 0, 3] == 0
    opaque = picture[picture[..., 3] > 0.9][:, :3].mean(-1)
    assert len(opaque) > 1000
    assert opaque.min() > 0.2 and opaque.max() < 0.8  # neither black nor white
