"""The report says in plain words how the models were asked."""

from __future__ import annotations

from typing import Any

from services.evaluator.domain.asking import how_asked
from shared.base import BaseProfile


def said(**fields: Any) -> str:
    known = {"digest": "d", "architecture": "A", "template_digest": "t", "content_format": "string"}
    return " ".join(how_asked(BaseProfile.model_validate(known | fields)))


def test_without_a_profile_the_servers_defaults_are_unknown() -> None:
    assert "unknown" in " ".join(how_asked(None))


def test_defaults_of_the_base_are_named_with_what_they_do_at_temperature_zero() -> None:
    text = said(sampling={"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05})
    assert "repetition_penalty 1.05, top_k 20, top_p 0.8" in text and "0.7" not in text
    assert "top_p and top_k have no effect" in text
    assert "already in the prompt" in text
    assert "top_p has no effect" in said(sampling={"top_p": 0.8})


def test_defaults_that_change_nothing_are_not_explained() -> None:
    assert (
        said()
        == said(sampling={"temperature": 0.3})
        == ("All variants were asked alike, at temperature 0: the most likely token at each step.")
    )
    assert "penalty does" not in said(sampling={"repetition_penalty": 1.0})


def test_the_way_in_which_the_base_thinks_is_named() -> None:
    switched = said(reasoning="switchable", chat_template_kwargs={"enable_thinking": False})
    assert "can think or not" in switched and "enable_thinking false" in switched
    assert "its own default" in said(reasoning="switchable")
    assert "can think or not" not in said(reasoning="always", chat_template_kwargs={"documents": "none"})
