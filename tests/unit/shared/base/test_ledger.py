"""The stored profiles: created once, and replaced only for facts of vLLM."""

from __future__ import annotations

import asyncio

import pytest

from shared.base import BaseProfile, ServerFacts
from shared.base.ledger import load, save
from tests.support.fakes.store import FakeStore

PROFILE = BaseProfile(digest="abc", architecture="LlamaForCausalLM", template_digest=None, content_format=None)


def with_facts(version: str, *linears: str) -> BaseProfile:
    return PROFILE.model_copy(update={"server": ServerFacts(version=version, linears=linears)})


async def test_a_profile_is_found_by_its_digest(objects: FakeStore) -> None:
    assert await load(objects, "abc") is None
    assert await save(objects, PROFILE) == PROFILE
    assert await load(objects, "abc") == PROFILE
    assert set(objects.held) == {"bases/abc.json"}


async def test_facts_of_vllm_are_added_and_never_removed(objects: FakeStore) -> None:
    known = with_facts("0.26.0", "q_proj")
    await save(objects, PROFILE)
    assert await save(objects, known) == known
    assert await save(objects, PROFILE) == known  # the validator knows of no facts
    assert await load(objects, "abc") == known


@pytest.mark.parametrize("newer", [with_facts("0.32.0", "q_proj"), with_facts("0.26.0", "q_proj", "o_proj")])
async def test_other_facts_replace_those_that_are_stored(newer: BaseProfile, objects: FakeStore) -> None:
    await save(objects, with_facts("0.26.0", "q_proj"))
    assert await save(objects, newer) == newer
    assert await load(objects, "abc") == newer


async def test_of_many_writers_none_loses_the_facts(objects: FakeStore) -> None:
    known = with_facts("0.32.0", "q_proj")
    stored = await asyncio.gather(*(save(objects, one) for one in (PROFILE, known, PROFILE, known)))
    assert await load(objects, "abc") == known
    assert known in stored
