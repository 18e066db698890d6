"""A copying circuit for a network that has no time to grow one.

Induction heads (Olsson et al. 2022, arXiv:2209.11895) let a transformer repeat what stands in its context: a head of
one layer tells each position which token came before it, and a head of the next layer finds the place where the current
token came before, and copies what followed. They usually form after millions of tokens; the tiny base reads a quarter
of one. So they are written into its random weights before training, which keeps and refines them. Without them no name
or number of a question ever reached the answer, after tuning or before (measured, also with three times the tokens).
"""

from __future__ import annotations

from typing import Any

import torch

CONSTANT = 0
"""The dimension of the embedding that is the same for all tokens: heads that look at positions alone read it."""
LEVEL = 5.0
"""Its value; the other dimensions are about 1."""
SHARPNESS = 40.0
"""The preceding position's lead over its neighbours, before the division by sqrt(head width): about e^5 in weight."""
WRITE, MATCH, COPY, RAISE = 1.5, 1.6, 2.0, 0.3
"""Gains of the four links. Untrained, the model then repeats 87 % of a row of random tokens (measured), with three
quarters of the attention on the right place."""


@torch.no_grad()  # type: ignore[untyped-decorator]
def write_induction(model: Any, generator: torch.Generator) -> None:
    """Write the circuit into heads 0 of layers 0 and 1 of a Llama with a head width of 64, in place.

    Embeddings become normally distributed with deviation 1: the circuit must outlive the first steps of the optimizer.
    """
    config = model.config
    width, hidden = config.head_dim, config.hidden_size
    half = width // 2
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    embedding.normal_(generator=generator)
    embedding[:, CONSTANT] = LEVEL
    normed = LEVEL / (1 + LEVEL**2 / hidden) ** 0.5

    # Three subspaces that do not overlap: what a token is, what came before it, and what comes next.
    basis = torch.nn.init.orthogonal_(torch.empty(hidden, hidden), generator=generator)
    basis[:, CONSTANT] = 0
    read, write, out = basis[:width], basis[width : 2 * width].T, basis[2 * width : 3 * width].T

    # Layer 0: rotary position turns pair i of queries and keys by its frequency times the distance; turned back by one
    # step, they agree at distance one. Slow pairs cannot tell neighbours apart and stay free.
    frequencies = config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    fast = half // 3
    amplitude = SHARPNESS**0.5 / normed
    first = model.model.layers[0].self_attn
    query, key = first.q_proj.weight[:width], first.k_proj.weight[:width]
    query.zero_()
    key.zero_()
    query[:fast, CONSTANT] = amplitude * frequencies[:fast].cos()
    query[half : half + fast, CONSTANT] = -amplitude * frequencies[:fast].sin()
    key[:fast, CONSTANT] = amplitude
    first.v_proj.weight[:width] = read
    first.o_proj.weight[:, :width] = WRITE * write

    # Layer 1: the query is the current token, the key the token before; only slow pairs, which distance hardly turns.
    slow = torch.cat([torch.arange(half // 2, half), torch.arange(half + half // 2, width)])
    second = model.model.layers[1].self_attn
    query, key = second.q_proj.weight[:width], second.k_proj.weight[:width]
    query.zero_()
    key.zero_()
    query[slow] = MATCH * read[: len(slow)]
    key[slow] = MATCH * write.T[: len(slow)]
    second.v_proj.weight[:width] = read
    second.o_proj.weight[:, :width] = COPY * out
    head.add_(RAISE * embedding @ read.T @ out.T)  # what is copied raises its own logit
