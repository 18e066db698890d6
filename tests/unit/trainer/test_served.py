"""What the trainer takes from the server's facts."""

from __future__ import annotations

import pytest

from services.trainer.served import served_linears
from shared.base import BaseProfile, ServerFacts
from shared.errors import InputError


def profile(server: ServerFacts | None) -> BaseProfile:
    return BaseProfile(
        digest="d", architecture="LlamaForCausalLM", template_digest=None, content_format=None, server=server
    )


def test_the_layers_that_the_server_has_if_it_was_asked():
    assert served_linears("micro", None) is None
    assert served_linears("micro", profile(None)) is None
    assert served_linears("micro", profile(ServerFacts(version="0.32"))) is None
    assert served_linears("micro", profile(ServerFacts(version="0.32", linears=("q_proj",)))) == ("q_proj",)


def test_a_base_that_the_server_cannot_serve_is_refused_with_its_reason():
    problem = "vLLM 0.32 cannot serve adapters on GPT2LMHeadModel"
    facts = ServerFacts(version="0.32", linears=("q_proj",), problem=problem)
    with pytest.raises(InputError, match=f"'micro' cannot be tuned: {problem}") as caught:
        served_linears("micro", profile(facts))
    assert (caught.value.code, caught.value.param) == ("unsupported_base", "model")
