"""Puts the runner of sweeps together."""

from __future__ import annotations

from services.api.resources.dependencies import Dependencies
from services.api.sweeps.controller import Controller
from services.api.sweeps.runner import LEASE_SECONDS, LOOK_SECONDS, TICK_SECONDS, SweepRunner
from services.api.sweeps.standings import Standings
from services.api.sweeps.store import SweepStore


def make_runner(
    dependencies: Dependencies,
    *,
    owner: str,
    tick_seconds: float = TICK_SECONDS,
    look_seconds: float = LOOK_SECONDS,
    lease_seconds: float = LEASE_SECONDS,
) -> SweepRunner:
    """`owner`: the name of this process in claims."""
    objects, projection = dependencies.objects, dependencies.projection
    store = SweepStore(objects)
    standings = Standings(objects, dependencies.database, projection)
    controller = Controller(objects, store, projection, standings, dependencies.bus)
    return SweepRunner(
        objects,
        store,
        controller,
        dependencies.sweeps_wanted,
        owner=owner,
        tick_seconds=tick_seconds,
        look_seconds=look_seconds,
        lease_seconds=lease_seconds,
    )
