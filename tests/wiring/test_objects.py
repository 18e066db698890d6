"""The object store client against the real S3 server."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from shared.errors import ConfigError
from shared.store.objects import ObjectStore
from tests.contract.store_suite import StoreSuite
from tests.support.embedded import Embedded


class TestObjectStore(StoreSuite):
    @pytest.fixture
    def store(self, parts: Embedded) -> ObjectStore:
        return parts.objects


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"access_key": "nobody"}, "knows no access key 'nobody' (TUNESTREAM_STORE__ACCESS_KEY)"),
        ({"secret_key": SecretStr("canary")}, "refuses TUNESTREAM_STORE__SECRET_KEY"),
        ({"system_bucket": "nowhere"}, "has no bucket 'nowhere' (TUNESTREAM_STORE__SYSTEM_BUCKET)"),
    ],
)
async def test_a_wrong_setting_is_named_at_the_start_and_later(
    parts: Embedded, wrong: dict[str, Any], words: str
) -> None:
    objects = ObjectStore.connect(parts.settings.store.model_copy(update=wrong))
    with pytest.raises(ConfigError) as caught:
        await objects.check()
    assert words in str(caught.value)
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError, match="TUNESTREAM_STORE__"):
        await objects.list("files/")
