"""Draws the loss curves."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from services.trainer.engine.messages import StepRow

INK = "#758195"
"""Of texts and lines on a transparent ground: it is read on a white page and on a dark one."""


def draw(rows: list[StepRow], best_step: int | None, path: Path) -> None:
    """Write a PNG to `path`: training loss per step, validation loss, and a mark at the step of the saved adapter."""
    figure = Figure(figsize=(8, 4.5), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    train = [(row.step, row.train_loss) for row in rows if row.train_loss is not None]
    axes.plot(*zip(*train, strict=True), label="training", linewidth=1)
    valid = [(row.step, row.valid_loss) for row in rows if row.valid_loss is not None]
    if valid:
        axes.plot(*zip(*valid, strict=True), label="validation", marker="o", markersize=4)
    if best_step is not None:
        axes.axvline(best_step, color="grey", linestyle="--", linewidth=1, label=f"saved: step {best_step}")
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("loss", color=INK)
    axes.tick_params(colors=INK)
    axes.spines[:].set_color(INK)
    axes.set_ylim(0, 1.05 * max(loss for _, loss in [*train, *valid]))
    axes.grid(alpha=0.3)
    axes.legend(labelcolor=INK, facecolor="none", edgecolor=INK)
    figure.tight_layout()
    figure.savefig(path, transparent=True)
