"""What numpy finds in many texts at once is what is found in each by itself."""

from __future__ import annotations

import random

import pytest

from services.validate.survey.texts.hashed import words_in
from services.validate.survey.texts.signatures import HALF, features, own, signatures
from services.validate.survey.texts.suspects import suspects
from services.validate.survey.texts.words import words_of
from shared.privacy import find_personal, find_secrets

PIECES = [
    "jane@mail.example.org",
    "+49 30 1234567",
    "(212) 555-0123",
    "06 12 34 56 78",
    "06\u00a012\u00a034\u00a056\u00a078",
    "030\u20101234567",
    "4111 1111 1111 1111",
    "4111111111111111",
    "DE89 3704 0044 0532 0130 00",
    "192.168.1.77",
    "078-05-1120",
    "2001:db8::ff00:42:8329",
    "fe80:0:0:0:204:61ff:fe9d:f156",
    "phone 5551234567",
    "AKIAZ7Q2M4X8W1P5K9D3",
    "12345678:AA" + "b7" * 17,
    "api_key = 'a8f7G6d5S4q3W2e1R0t9'",
    "password: hunter22!",
    "contraseña: Abc123!x",
    "passwd: п4роль\u0663x",
    "Kennwort=ßüäö9x",
    "secret ١٢٣٤٥٦٧٨٩٠abcdefgh",
    "postgres://shop:b7xyz@db/orders",
    "-----BEGIN RSA PRIVATE KEY-----\nMII",
    "ghp_" + "a1B2c3" * 6,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "order 12 of 3 May",
    "a::b",
    "the key is",
    "日本語",
    "Größe",
    "",
    "\n",
    "x" * 30,
]


def mixed_texts(seed: int) -> list[str]:
    """Texts of some of the pieces, some of whose characters are replaced, doubled or left out."""
    dice = random.Random(seed)

    def changed(piece: str) -> str:
        if dice.random() < 0.6:
            return piece
        return "".join(
            dice.choice((each, each, each, each, each * 2, "", dice.choice(" .-:@09aZé\u00a0"))) for each in piece
        )

    return [
        dice.choice((" ", "\n", "", ", ")).join(changed(piece) for piece in dice.choices(PIECES, k=dice.randint(0, 3)))
        for _ in range(400)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_a_text_that_holds_something_private_is_always_searched(seed: int) -> None:
    texts = mixed_texts(seed)
    found = suspects(texts)
    held = 0
    for text, personal, secret, long in zip(texts, *found, strict=True):
        held += bool(find_personal(text)) + bool(find_secrets(text))
        assert personal or not find_personal(text), text
        assert secret or not find_secrets(text), text
        assert find_secrets(text, long=long) == find_secrets(text), text
    assert held > 100


def test_texts_of_ordinary_words_are_not_searched() -> None:
    found = suspects(
        ["How do I pay?\n\n- by card\n- on 12 May", "ticket 4711: it costs $9.99", "well-known, isn't it", ""]
    )
    assert not found.personal.any() and not found.long.any() and not found.secret[[0, 2, 3]].any()


def test_words_are_those_of_each_text() -> None:
    texts = [
        *mixed_texts(7),
        "The end, THE end",
        "日本語のテキストです" * 5,
        "straße STRASSE",
        "one " * 5000,
        "_a1 ",
        "b" * 100,
    ]
    found = words_in(texts)
    known: dict[str, int] = {}
    hashes = iter(found.hashes.tolist())
    for text, count, different in zip(texts, found.counts, found.different, strict=True):
        words = words_of(text)
        assert (count, different) == (len(words), len(set(words)))
        assert all(known.setdefault(word, value) == value for word, value in zip(words, hashes, strict=False))
    assert len(set(known.values())) == len(known)


def test_common_features_are_left_out_unless_nothing_is_left() -> None:
    rows = ["dear shop please tell me where parcel seven is", "dear shop please", "dear shop please no no no no no no"]
    common = sorted({*features(words_in(rows[1:2])).hashes.tolist()})
    found = features(words_in(rows))
    left = own(found, b"".join(each.to_bytes(8, "little") for each in common))
    ends = left.counts.cumsum().tolist()
    assert not {*left.hashes[: ends[0]].tolist()} & {*common}
    assert {*left.hashes[ends[0] : ends[1]].tolist()} == {*common}
    assert {*common} < {*left.hashes[ends[1] :].tolist()}


def test_the_values_of_two_signatures_agree_as_often_as_the_texts_are_similar() -> None:
    """The share has a standard deviation of 0.06 for one pair, and of 0.004 for the mean of 200."""
    dice = random.Random(1)
    errors = []
    for _ in range(200):
        words = [f"w{dice.randrange(5000)}" for _ in range(60)]
        other = [word if dice.random() < 0.9 else f"v{dice.randrange(5000)}" for word in words]
        halves = features(words_in([" ".join(words), " ".join(other)]))
        one, two = ({*part.tolist()} for part in (halves.hashes[: halves.counts[0]], halves.hashes[halves.counts[0] :]))
        _, kept = signatures(halves)
        errors.append((kept[0, :HALF] == kept[0, HALF:]).mean() - len(one & two) / len(one | two))
    assert abs(sum(errors) / len(errors)) < 0.02
