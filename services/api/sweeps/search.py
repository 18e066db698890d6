"""The search itself, by Optuna: which settings are tried next, and which trial is not worth its end.

A study is made anew from the documents each time, so nothing has to be kept in step with them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from services.api.domain.sweeps.documents import Sweep
from services.api.domain.sweeps.space import (
    WHOLE,
    Number,
    Parameters,
    Range,
    SearchSpace,
    all_draws,
    combinations,
    first_draw,
)
from services.api.domain.sweeps.standing import TENTHS, Standing
from shared import ids

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

DRAWS = 30
"""How often a draw is repeated that was tried before."""
FIRST_RANDOM = 4
"""At most so many trials are drawn at random before what they tell is used; of a small sweep a third."""
FULL_TRIALS, WARM_UP_TENTHS = 2, 2
"""A trial is compared with others when two have ended, and a fifth of its own training is done: the first validations
say more of the warm-up than of the settings."""


def is_installed() -> bool:
    """Whether this service can search."""
    return find_spec("optuna") is not None


def propose(sweep: Sweep, standings: Sequence[Standing], number: int) -> Parameters:
    """The settings of trial `number`, which no trial before has: of the first one those of a plain job, as far as the
    space has them. The same sweep in the same state gives the same ones."""
    if number == 0:
        return first_draw(sweep.space)
    known = [standing.parameters for standing in standings]
    for draw in range(DRAWS):
        drawn = _ask(sweep, standings, _seed(sweep, number, draw))
        if drawn not in known:
            return drawn
    if combinations(sweep.space) is None:
        return drawn
    return next(each for each in all_draws(sweep.space) if each not in known)


def hopeless(sweep: Sweep, standings: Sequence[Standing], standing: Standing) -> str | None:
    """Why the running trial `standing` is not worth its end; None: it goes on. The median rule of Golovin et al. 2017,
    "Google Vizier": its best loss so far is above the median of what others had after the same share of their
    trainings."""
    if sweep.pruning == "off" or not standing.training or not standing.points:
        return None
    import optuna  # noqa: PLC0415  # half a second, and the images of other services lack it

    study = _study(sweep, [each for each in standings if each.number != standing.number], seed=0)
    trial = _trial(sweep, standing)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=FULL_TRIALS, n_warmup_steps=WARM_UP_TENTHS)
    if not pruner.prune(study, trial):
        return None
    tenth = max(trial.intermediate_values)
    others = sorted(
        each.at_tenths()[tenth] for each in standings if each.status == "succeeded" and tenth in each.at_tenths()
    )
    least = min(trial.intermediate_values.values())
    return (
        f"its best validation loss after {tenth / TENTHS:.0%} of its training was {least:.4f}, above the median of "
        f"{len(others)} trials then"
    )


def _ask(sweep: Sweep, standings: Sequence[Standing], seed: int) -> Parameters:
    study = _study(sweep, standings, seed)
    drawn = study.ask(_distributions(sweep.space)).params
    domains = sweep.space.searched()
    return {name: _shortened(value, domains[name]) for name, value in drawn.items()}


def _shortened(value: Number, domain: Range | tuple[Number, ...]) -> Number:
    """A value of a range with six digits, which people can read; other values as they are."""
    if not isinstance(domain, Range) or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.6g}"), domain.low), domain.high)


def _seed(sweep: Sweep, number: int, draw: int) -> int:
    return int.from_bytes(ids.derive(sweep.seed, number, draw, chars=6).encode()) % 2**32


def _study(sweep: Sweep, standings: Sequence[Standing], seed: int) -> Study:
    import optuna  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        # multivariate and constant_liar are marked as experimental since 2020
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=max(1, min(FIRST_RANDOM, sweep.trials // 3)),
            multivariate=True,
            constant_liar=True,  # a trial that runs is not drawn again beside it
        )
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.add_trials([_trial(sweep, standing) for standing in standings])
    return study


def _trial(sweep: Sweep, standing: Standing) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial  # noqa: PLC0415

    about: dict[str, Any] = {
        "params": standing.parameters,
        "distributions": _distributions(sweep.space),
        "intermediate_values": standing.at_tenths(),
    }
    if standing.status == "succeeded" and standing.valid_loss is not None:
        return create_trial(state=TrialState.COMPLETE, value=standing.valid_loss, **about)
    if standing.status == "pruned" and standing.points:
        return create_trial(state=TrialState.PRUNED, value=standing.points[-1].valid_loss, **about)
    return create_trial(state=TrialState.FAIL if standing.ended else TrialState.RUNNING, **about)


def _distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    from optuna.distributions import (  # noqa: PLC0415
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    found: dict[str, BaseDistribution] = {}
    for name, domain in space.searched().items():
        if not isinstance(domain, Range):
            found[name] = CategoricalDistribution(domain)
        elif name in WHOLE:
            found[name] = IntDistribution(int(domain.low), int(domain.high), log=domain.log)
        else:
            found[name] = FloatDistribution(domain.low, domain.high, log=domain.log)
    return found
