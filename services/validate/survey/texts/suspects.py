"""Which texts may hold personal data or a secret: a test that no such text fails, and that most other texts fail.

What `shared/privacy` looks for has parts that numpy finds in many texts at once: an `@`, six characters of a number,
sixteen characters without a space. Only texts that have one are searched by expressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from services.validate.survey.texts.joined import Array, Joined, joined, runs


class Suspects(NamedTuple):
    """Masks of the texts that may hold something. `long`: of those with 16 characters without a space; the others hold
    no secret of a known form."""

    personal: Array
    secret: Array
    long: Array


_NUMBER = 6
"""Characters of the shortest number, its separators included."""
_IPV6_GROUP = 5
"""Bytes from one colon of an address to the next, at most."""
_LONG = 16
"""Characters of the shortest secret of a known form."""
_VALUE = 6
"""Characters of the shortest password."""
_DASHES = 5
"""They begin a block with a private key."""


def suspects(texts: Sequence[str]) -> Suspects:
    """Look at the texts. One outside its mask holds nothing that `find_personal` or `find_secrets` would find."""
    each = joined([text.encode("utf-8", "surrogatepass") for text in texts])
    data = each.data
    foreign = data >= 128
    digit = data - np.uint8(ord("0")) < 10
    at = _texts(each, data == ord("@"))
    # the separators of numbers: space ( ) - . / and a few outside ASCII
    number = digit | foreign | (data == 32) | (data - np.uint8(40) < 2) | (data - np.uint8(45) < 3)
    numbers = runs(number, _NUMBER)
    personal = _texts(each, numbers & digit[: len(numbers)]) | at | _addresses(each)
    visible = (data > 32) & (data != 127)
    long = _texts(each, runs(visible & ~foreign, _LONG))
    # a named value has a digit, which may be one outside ASCII
    named = _texts(each, runs(visible, _VALUE) & ~runs(~(digit | foreign), _VALUE))
    blocks = _texts(each, runs(data == ord("-"), _DASHES))
    return Suspects(personal, named | long | blocks | at, long)


def _texts(each: Joined, places: Array) -> Array:
    """A mask of the texts in which these places are, which are a mask, too."""
    found = np.zeros(len(each.ends), bool)
    if places.any():
        found[each.owners(np.flatnonzero(places))] = True
    return found


def _addresses(each: Joined) -> Array:
    """A mask of the texts with colons as near to each other as in an IPv6 address."""
    found = np.zeros(len(each.ends), bool)
    colons = np.flatnonzero(each.data == ord(":"))
    near = np.flatnonzero(np.diff(colons) <= _IPV6_GROUP)
    if len(near):
        found[each.owners(colons[near])] = True
    return found
