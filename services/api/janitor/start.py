"""Puts the janitor together from the settings."""

from __future__ import annotations

from services.api.database import ProjectionDatabase
from services.api.duty import new_owner
from services.api.janitor.janitor import Janitor
from services.api.janitor.sweep import Sweep
from services.api.janitor.tombstones import Tombstones
from shared.errors import ConfigError
from shared.settings import Settings
from shared.store.objects import ObjectStore


def make_janitor(objects: ObjectStore, database: ProjectionDatabase, settings: Settings) -> Janitor:
    """`objects`: the store as the api service reaches it, for a janitor without credentials of its own.

    Raises:
        ConfigError: only one half of its credentials is set.
    """
    own, store = settings.janitor, settings.store
    if (own.access_key is None) != (own.secret_key is None):
        raise ConfigError(
            "TUNESTREAM_JANITOR__ACCESS_KEY and TUNESTREAM_JANITOR__SECRET_KEY belong together: set both, or neither"
        )
    user = f"{store.access_key!r} (TUNESTREAM_STORE__ACCESS_KEY, as TUNESTREAM_JANITOR__ACCESS_KEY is not set)"
    if own.access_key is not None and own.secret_key is not None:
        credentials = {"access_key": own.access_key, "secret_key": own.secret_key}
        objects = ObjectStore.connect(store.model_copy(update=credentials))
        user = f"{own.access_key!r} (TUNESTREAM_JANITOR__ACCESS_KEY)"
    sweep = Sweep(
        objects,
        settings.retention,
        datasets=store.datasets_bucket,
        seconds=own.sweep_seconds,
        settled=database.is_settled,
    )
    return Janitor(objects, Tombstones(objects), sweep, owner=new_owner(), user=user, seconds=own.tombstones_seconds)
