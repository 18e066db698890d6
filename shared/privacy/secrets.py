"""Keys, tokens, passwords and private keys in a text.

What has a known form is found by it: the prefix that its issuer gives it, so that scanners can find it. Other values
need a word before them (`api_key = …`, `password: …`), and must look random. So hashes, UUIDs, placeholders and code
without values are left alone.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterator
from math import log2

from shared.privacy.spans import Kind, Span, disjoint, has_digit

# A text that lacks the first part is not searched for the second; `str.__contains__` is a hundred times quicker.
_FORMS: tuple[tuple[str, str, Kind], ...] = (
    ("AKIA", r"AKIA[A-Z0-9]{16}", "key"),
    ("ASIA", r"ASIA[A-Z0-9]{16}", "key"),
    ("sk-", r"sk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]{2,8}-|or-v1-|lf-)?[A-Za-z0-9_-]{20,200}", "key"),
    ("ghp_", r"ghp_[A-Za-z0-9]{30,255}", "token"),
    ("gho_", r"gho_[A-Za-z0-9]{30,255}", "token"),
    ("ghu_", r"ghu_[A-Za-z0-9]{30,255}", "token"),
    ("ghs_", r"ghs_[A-Za-z0-9]{30,255}", "token"),
    ("ghr_", r"ghr_[A-Za-z0-9]{30,255}", "token"),
    ("github_pat_", r"github_pat_[A-Za-z0-9_]{22,255}", "token"),
    ("glpat-", r"glpat-[A-Za-z0-9_-]{20,64}", "token"),
    ("xox", r"xox[abeoprs]-[A-Za-z0-9-]{10,250}", "token"),
    ("xapp-", r"xapp-\d-[A-Z0-9]+-\d+-[A-Za-z0-9]{10,100}", "token"),
    (
        "hooks.slack.com",
        r"hooks\.slack\.com/(?:services|workflows)/T[A-Za-z0-9]+/[A-Za-z0-9]+/[A-Za-z0-9]{16,40}",
        "token",
    ),
    ("_live_", r"(?:sk|rk|pk)_live_[A-Za-z0-9]{10,250}", "key"),
    ("_test_", r"(?:sk|rk|pk)_test_[A-Za-z0-9]{10,250}", "key"),
    ("whsec_", r"whsec_[A-Za-z0-9+/=]{24,80}", "key"),
    ("AIza", r"AIza[A-Za-z0-9_-]{35}", "key"),
    ("GOCSPX-", r"GOCSPX-[A-Za-z0-9_-]{20,40}", "key"),
    ("ya29.", r"ya29\.[A-Za-z0-9_-]{20,300}", "token"),
    ("hf_", r"hf_[A-Za-z0-9]{30,60}", "token"),
    ("npm_", r"npm_[A-Za-z0-9]{36}", "token"),
    ("pypi-", r"pypi-AgE[A-Za-z0-9_-]{40,250}", "token"),
    ("SG.", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}", "key"),
    ("key-", r"key-[0-9a-f]{32}", "key"),
    ("shp", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}", "token"),
    ("_v1_", r"do[opr]_v1_[0-9a-f]{64}", "token"),
    ("dapi", r"dapi[0-9a-f]{32}", "token"),
    ("gsk_", r"gsk_[A-Za-z0-9]{40,60}", "key"),
    ("xai-", r"xai-[A-Za-z0-9]{60,100}", "key"),
    ("r8_", r"r8_[A-Za-z0-9]{37}", "token"),
    ("pplx-", r"pplx-[A-Za-z0-9]{40,60}", "key"),
    ("hvs.", r"hvs\.[A-Za-z0-9_-]{24,120}", "token"),
    ("ATATT3", r"ATATT3[A-Za-z0-9_=-]{60,250}", "token"),
    ("glsa_", r"glsa_[A-Za-z0-9]{32}_[0-9a-f]{8}", "token"),
    ("NRAK-", r"NRAK-[A-Z0-9]{27}", "key"),
    ("ntn_", r"ntn_[A-Za-z0-9]{40,60}", "token"),
    ("lin_api_", r"lin_api_[A-Za-z0-9]{32,64}", "key"),
    ("AccountKey=", r"AccountKey=[A-Za-z0-9+/]{40,100}={0,2}", "key"),
    (":AA", r"\d{8,10}:AA[A-Za-z0-9_-]{32,35}", "token"),
)
_KNOWN = tuple((part, re.compile(rf"(?<![A-Za-z0-9_]){form}(?![A-Za-z0-9])"), kind) for part, form, kind in _FORMS)
_MARKS = ("_", "-", *(part for part, _, _ in _FORMS if "_" not in part and "-" not in part))
"""One of these is in every text that has a known form."""
_SHORTEST = 16
_BLOCK = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]{0,20000}-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----)?"
)
_JWT = re.compile(
    r"(?<![A-Za-z0-9_-])(eyJ[A-Za-z0-9_-]{8,4000})\.eyJ[A-Za-z0-9_-]{8,8000}(?:\.[A-Za-z0-9_-]{10,2000})?"
)
_URL = re.compile(r"\b[a-z][a-z0-9+]{1,20}://[^\s:@/\"'<>]{1,100}:([^\s:@/\"'<>]{3,100})@[\w.-]+")

# Words that name a secret. After `key` alone too many harmless things come.
_PASSWORD_WORDS = ("passw", "pwd", "passphrase", "kennwort", "mot de passe", "contraseña")
_TOKEN_WORDS = ("token", "secret", "bearer", "credential", "key")
_OF_A_KEY = re.compile(
    r"(?:api|access|secret|private|auth|account|encryption|signing|client|session|refresh)[_ -]?$", re.IGNORECASE
)
_ASSIGNED = re.compile(
    r"\w{0,20}(?:[_ -](?:id|key|value|token)s?)?"
    r"[\"'`*]{0,3}(?P<joint>\s{0,3}(?:=>|:=|[:=]|\b(?:is|ist|es|est|was|to)\b)\s{0,3}|\s)[\"'`*<]{0,3}"
    r"(?P<value>[^\s\"'`<>,;(){}\[\]*]{6,200})",
    re.IGNORECASE,
)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"your|example|placeholder|changeme|change_me|redacted|dummy|sample|xxxx|\*\*\*|\.\.\.|…|<|\$\{|process\.env|os\.environ|"
    r"getenv|^(?:\w+\.)+\w+$|^[A-Z_]+$|1234567890abcdef|abcdefgh",
    re.IGNORECASE,
)


def find_secrets(text: str, *, long: bool = True) -> list[Span]:
    """Every place with a secret, in order and disjoint. A secret that is named by a word is only its value. `long`:
    False where it is known that the text has no 16 characters without a space, as every known form has."""
    found: list[Span] = []
    # a text of ordinary words need not be searched for each of the known forms
    if long and any(map(text.__contains__, _MARKS)) and max(map(len, text.split()), default=0) >= _SHORTEST:
        for part, form, kind in _KNOWN:
            if part not in text:
                continue
            found += [Span(match.start(), match.end(), kind) for match in form.finditer(text) if _random(match[0])]
    if "-----BEGIN" in text:
        found += [Span(match.start(), match.end(), "private_key") for match in _BLOCK.finditer(text)]
    if "eyJ" in text:
        found += [Span(match.start(), match.end(), "token") for match in _JWT.finditer(text) if _is_header(match[1])]
    if "://" in text and "@" in text:
        found += _in_urls(text)
    found += _named(text)
    return disjoint(found) if found else found


def _is_header(part: str) -> bool:
    try:
        return b'"alg"' in base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        return False


def _in_urls(text: str) -> Iterator[Span]:
    for match in _URL.finditer(text):
        if not _PLACEHOLDER.search(match[1]) and match[1].lower() not in ("password", "pass", "pwd", "secret", "token"):
            yield Span(match.start(1), match.end(1), "password")


def _named(text: str) -> Iterator[Span]:
    # every value that is meant has a digit
    if text.isascii() and not has_digit(text):
        return
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters have two small ones
        lowered = "".join(small if len(small := each.lower()) == 1 else each for each in text)
    for word in _PASSWORD_WORDS:
        for value, span in _assigned(text, lowered, word, "password") if word in lowered else ():
            if any(each.isdigit() for each in value):
                yield span
    for word in _TOKEN_WORDS:
        for value, span in _assigned(text, lowered, word, "token") if word in lowered else ():
            if _is_token(value):
                yield span


def _assigned(text: str, lowered: str, word: str, kind: Kind) -> Iterator[tuple[str, Span]]:
    """What stands after each place of a word, as the value that it names."""
    at = lowered.find(word)
    while at >= 0:
        match = _ASSIGNED.match(text, at + len(word))
        if match and (word != "key" or _OF_A_KEY.search(text, max(0, at - 12), at)):
            value = match["value"].rstrip(".!?:")
            # after a bare space the next word may be any word
            classes = 3 if kind == "password" and match["joint"].isspace() else 2
            if len(value) >= 6 and _classes(value) >= classes and not _PLACEHOLDER.search(value):
                begin = match.start("value")
                yield value, Span(begin, begin + len(value), kind)
        at = lowered.find(word, at + len(word))


def _is_token(value: str) -> bool:
    if len(value) < 16 or not any(each.isdigit() for each in value):
        return False
    return not _UUID.fullmatch(value) and _entropy(value) >= 3.0


def _random(value: str) -> bool:
    """Whether a value of a known form is no placeholder, such as `sk-your-key-here-your-key-here`."""
    tail = re.split(r"[-_.]", value, maxsplit=1)[-1]
    if re.search(r"your|example[-_]|placeholder|xxxx|\.\.\.|\*\*", value, re.IGNORECASE):
        return False
    digits = sum(each.isdigit() for each in tail)
    # words with dashes between them have neither
    mixed = digits > 1 or (digits > 0 and _classes(tail.replace("-", "")) == 3) or not value.startswith("sk-")
    return mixed and _entropy(tail) >= 2.5


def _classes(value: str) -> int:
    """How many of these it has: small letters, capitals, digits, others."""
    return len({"a" if c.islower() else "A" if c.isupper() else "0" if c.isdigit() else "-" for c in value})


def _entropy(value: str) -> float:
    """Bits of each character (Shannon), of the characters of the value itself."""
    size = len(value)
    return -sum(count / size * log2(count / size) for count in Counter(value).values())
