"""Phone numbers in a text. The numbering plans are those of the library `phonenumbers`."""

from __future__ import annotations

import re
from collections.abc import Iterator

_PHONE_WORDS = re.compile(
    r"\b(?:(?:tele)?(?:phone|fon)s?|tel|call(?: (?:me|us|him|her|back|them))?|mobile|mobil\w*|cell(?:ular)?|fax|"
    r"whatsapp|sms|text me|dial|reach (?:me|us|him|her)|ring|hotline|handy\w*|rufnummer|téléphone|portable|teléfono|"
    r"móvil|celular|"
    r"telefono|cellulare|telefoon|telefone|contact number)\b",
    re.IGNORECASE,
)
_OTHER_WORDS = re.compile(
    r"\b(?:order|invoice|ticket|case|ref(?:erence)?|tracking|id|isbn|sku|serial|part|code|version|bestell\w*|rechnung\w*|"
    r"commande|pedido|model|article|item|date|price|zip|year)\b|#|№|[$€£]",
    re.IGNORECASE,
)
_RUN = re.compile(r"[+(]{0,2}[0-9](?:(?:\) ?|\)-| ?\(| [-/] |[ ./\-\u00a0\u202f\u2010\u2011])?[0-9]){5,19}")
_LAST_GROUP = re.compile(r"[^0-9]+[0-9]+$")
_DATE = re.compile(
    r"(?:19|20)\d\d[-./ ]?[01]?\d[-./ ]?[0-3]?\d(?:\D|$)|[0-3]?\d[-./][0-3]?\d[-./](?:19|20)?\d\d(?:\D|$)"
)
_NANP = re.compile(r"(?:1[-. ]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. ])[2-9]?\d\d[-. ]\d{4}")
"""The usual forms of North America: (212) 555-0123, 212-555-0123."""
_NATIONAL = re.compile(r"\(?0\d{1,5}\)?(?: ?[/-] ?| )\d[\d \-/]{3,13}|0\d(?:[ .]\d\d){4}")
"""A trunk prefix, then groups: 030 / 1234567, 020 7946 0958, 06 12 34 56 78."""
_REGIONS = ("GB", "DE", "FR", "IT", "ES", "NL", "AT", "CH", "BE", "PL", "SE", "AU", "IN", "JP", "BR", "US")


def phones(text: str, begin: int) -> Iterator[tuple[int, int]]:
    """Begin and end of every phone number from `begin` on."""
    for match in _RUN.finditer(text, begin):
        before, value = text[max(0, match.start() - 40) : match.start()], match[0]
        # another number may follow it: `212-555-0123 10 times`
        for _ in range(4):
            end = match.start() + len(value)
            if _is_phone(value, before, text[end : end + 1]):
                yield match.start(), end
                break
            value = _LAST_GROUP.sub("", value)


def _is_phone(value: str, before: str, after: str) -> bool:
    # letters at its edges make it a part of something else; so does a fraction, or a dash to what is no digit
    if before and (before[-1].isalnum() or before[-1] in "_/.,-=&?%$€£#+"):
        return False
    if after and (after.isalnum() or after in "_%€$£@"):
        return False
    digits = re.sub(r"\D", "", value)
    if not 7 <= len(digits) <= 15:
        return False
    if value.lstrip("(").startswith("+"):
        return _possible(value, None)
    near = _words_near(before)
    if _OTHER_WORDS.search(near):
        return False
    if _PHONE_WORDS.search(near):
        return not _DATE.fullmatch(value)
    if _NANP.fullmatch(value):
        return _possible(value, "US")
    return bool(_NATIONAL.fullmatch(value)) and any(_valid(value, region) for region in _REGIONS)


def _words_near(before: str) -> str:
    """The words of the same clause before a number."""
    return re.split(r"[;!?\n]|\. ", before)[-1][-30:]


def _possible(value: str, region: str | None) -> bool:
    import phonenumbers  # noqa: PLC0415  # half a second, and most texts need none of it

    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(value, region))
    except phonenumbers.NumberParseException:
        return False


def _valid(value: str, region: str) -> bool:
    import phonenumbers  # noqa: PLC0415

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(value, region))
    except phonenumbers.NumberParseException:
        return False
