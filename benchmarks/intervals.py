"""How often a model that is no better passes the gate, and a better one: `python -m benchmarks.intervals`.

For each number of test examples it simulates evaluations, and counts how many intervals of (tuned - base) lie above
zero, with ours and with the percentile bootstrap, on the same evaluations. Of models that are no better,
(1 - confidence) / 2 may pass: 2.5 % at 0.95. "No better" means that base and tuned draw their scores from one
distribution. The lopsided case is beyond that: equal means, but many small wins against few big losses. On few examples
no loss may be seen at all, and then the scores are those of a model that only wins. A test that lets six wins and no
loss pass has to let these pass, too; the line below shows their share.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from services.evaluator.domain.gate.verdict import examples_needed
from services.evaluator.statistics.macro_f1 import MacroF1
from services.evaluator.statistics.sign_flips import Figure, Floats, intervals

SIZES = (5, 6, 8, 10, 20, 50, 100, 200)
CONFIDENCES = (0.95, 0.99)
BATCH = 250  # evaluations that share one choice of subsets and of resamples
RESAMPLES = 10_000
LABELS = ("a", "b", "c", "d")
SHARES = (0.55, 0.25, 0.15, 0.05)
Resampled = Callable[[Floats], Floats]
"""From how often each example was drawn, (resamples, examples), to the difference in each resample, (resamples,)."""


@dataclass(frozen=True)
class Trial:
    """One simulated evaluation, for both kinds of interval."""

    figure: Figure
    resampled: Resampled


@dataclass(frozen=True)
class Case:
    """A kind of evaluation. `draw` simulates one of so many examples."""

    name: str
    draw: Callable[[np.random.Generator, int], Trial]
    trials: float = 1.0
    """The share of the wanted trials; macro F1 takes long."""


def _mean(differences: Floats) -> Trial:
    figure = Figure(np.asarray(differences, dtype=np.float64), (-1.0, 1.0))
    return Trial(figure, lambda weights: weights @ figure.values / len(figure.values))


def _texts(generator: np.random.Generator, count: int, *, a: float, b: float, unchanged: float, gain: float) -> Trial:
    base = generator.beta(a, b, size=count)
    tuned = np.minimum(generator.beta(a, b, size=count) + gain, 1.0)
    return _mean(np.where(generator.random(count) < unchanged, 0.0, tuned - base))


def _right(generator: np.random.Generator, count: int, *, wins: float, losses: float) -> Trial:
    return _mean(generator.choice([1.0, -1.0, 0.0], size=count, p=[wins, losses, 1 - wins - losses]))


LOPSIDED_WINS, LOPSIDED_LOSSES = 0.3, 0.1


def _lopsided(generator: np.random.Generator, count: int) -> Trial:
    shares = [LOPSIDED_WINS, LOPSIDED_LOSSES, 1 - LOPSIDED_WINS - LOPSIDED_LOSSES]
    return _mean(generator.choice([0.1, -0.3, 0.0], size=count, p=shares))


def without_a_loss(count: int, confidence: float) -> float:
    """The share of lopsided evaluations of `count` examples that show no loss, and the fewest wins that must pass."""
    wins = examples_needed(confidence)
    unchanged = 1 - LOPSIDED_WINS - LOPSIDED_LOSSES
    return sum(
        math.comb(count, won) * LOPSIDED_WINS**won * unchanged ** (count - won) for won in range(wins, count + 1)
    )


def _labels(generator: np.random.Generator, count: int, *, base: float, tuned: float) -> Trial:
    wanted = generator.choice(LABELS, size=count, p=SHARES)

    def answers(right: float) -> MacroF1:
        given = np.where(generator.random(count) < right, wanted, generator.choice(LABELS, size=count))
        return MacroF1(wanted.tolist(), given.tolist())

    one, two = answers(base), answers(tuned)
    return Trial(two.minus(one), lambda weights: _macro_f1(two, weights) - _macro_f1(one, weights))


def _macro_f1(model: MacroF1, weights: Floats) -> Floats:
    support = weights @ model.wanted
    f1 = 2 * (weights @ model.hit) / np.maximum(support + weights @ model.given, 1.0)
    return np.asarray(f1.sum(axis=1) / np.maximum((support > 0).sum(axis=1), 1))


NO_BETTER = (
    Case("ROUGE-L, half unchanged", lambda g, n: _texts(g, n, a=0.6, b=0.6, unchanged=0.5, gain=0.0)),
    Case("ROUGE-L, skewed scores", lambda g, n: _texts(g, n, a=0.5, b=4.0, unchanged=0.2, gain=0.0)),
    Case("ROUGE-L, bell-shaped", lambda g, n: _texts(g, n, a=8.0, b=8.0, unchanged=0.0, gain=0.0)),
    Case("accuracy, 20 % differ", lambda g, n: _right(g, n, wins=0.1, losses=0.1)),
    Case("accuracy, 60 % differ", lambda g, n: _right(g, n, wins=0.3, losses=0.3)),
    Case("macro F1, rare labels", lambda g, n: _labels(g, n, base=0.7, tuned=0.7), trials=0.2),
)
LOPSIDED = (Case("lopsided, equal means", _lopsided),)
BETTER = (
    Case("ROUGE-L +0.1", lambda g, n: _texts(g, n, a=8.0, b=8.0, unchanged=0.0, gain=0.1)),
    Case("ROUGE-L +0.3", lambda g, n: _texts(g, n, a=2.0, b=6.0, unchanged=0.2, gain=0.3)),
    Case("accuracy 0.65 to 0.90", lambda g, n: _right(g, n, wins=0.3, losses=0.05)),
    Case("macro F1, 0.5 to 0.9 right", lambda g, n: _labels(g, n, base=0.5, tuned=0.9), trials=0.2),
)


def pass_rates(case: Case, count: int, confidence: float, trials: int, *, rival: bool = True) -> tuple[float, float]:
    """The share of `trials` evaluations of `count` examples that pass: by our intervals, by the percentile bootstrap
    (nan without `rival`)."""
    ours = theirs = 0
    for start in range(0, trials, BATCH):
        generator = np.random.default_rng((count, start))
        drawn = [case.draw(generator, count) for _ in range(min(BATCH, trials - start))]
        figures = {index: trial.figure for index, trial in enumerate(drawn)}
        found = intervals(figures, count, confidence=confidence, seed=start)
        ours += sum(interval.low > 0 for interval in found.values())
        if rival:
            picks = generator.integers(0, count, size=(RESAMPLES, count))
            flat = (picks + np.arange(RESAMPLES)[:, None] * count).ravel()
            weights = np.bincount(flat, minlength=RESAMPLES * count).reshape(RESAMPLES, count).astype(np.float64)
            tail = (1 - confidence) / 2
            lows = [np.quantile(trial.resampled(weights), tail, method="lower") for trial in drawn]
            theirs += sum(bool(low > 1e-12) for low in lows)
    return ours / trials, theirs / trials if rival else math.nan


def rows(cases: tuple[Case, ...], confidence: float, trials: int) -> Iterator[str]:
    """A line per case and kind of interval, with a rate in percent per number of examples."""
    for case in cases:
        wanted = max(BATCH, int(trials * case.trials))
        rates = [pass_rates(case, count, confidence, wanted) for count in SIZES]
        for kind, column in (("ours", 0), ("percentile bootstrap", 1)):
            told = "".join(f"{100 * rate[column]:7.1f}" for rate in rates)
            yield f"{case.name:28}{kind:22}{told}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2_000)
    options = parser.parse_args()
    for confidence in CONFIDENCES:
        tail = (1 - confidence) / 2
        error = math.sqrt(tail * (1 - tail) / options.trials)
        print(f"\nconfidence {confidence}: of models that are no better {100 * tail:.1f} % may pass")
        print(f"rates in %, {options.trials} evaluations each (macro F1: a fifth), standard error {100 * error:.2f}")
        print(f"{'examples':50}" + "".join(f"{count:7}" for count in SIZES))
        for title, cases in (("no better", NO_BETTER), ("beyond the promise", LOPSIDED), ("better", BETTER)):
            started = time.perf_counter()
            print(f"-- {title}")
            for row in rows(cases, confidence, options.trials):
                print(row, flush=True)
            if cases is LOPSIDED:
                told = "".join(f"{100 * without_a_loss(count, confidence):7.1f}" for count in SIZES)
                print(f"{'':28}{'wins and no loss':22}{told}")
            print(f"   ({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
