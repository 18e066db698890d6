"""A tokenizer that remembers: texts that begin alike are tokenized once, and many pieces of text in one call.

A tokenizer looks for its added tokens first, and tokenizes what is between them apart. So a text may be cut before an
added token, if nothing else can be found across the cut. Each piece begins with its added token, since some tokenizers
write a space at the beginning of everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from typing import Any

_CHARACTERS = 8 * 2**20  # so much text is remembered
_BACK = 6  # the text of one more message differs from the one before in its last pieces only


@dataclass
class _Cut:
    """A text and where its pieces begin. `ends`: how many ids there are before each piece, and at the end."""

    text: str
    places: list[int]
    ids: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0])


class Tokens:
    """Gives the very ids and texts that the tokenizer gives."""

    def __init__(self, tokenizer: Any, written: str) -> None:
        """`tokenizer`: one of transformers. `written`: text that shows which added tokens are frequent: its chat
        template."""
        self._tokenizer = tokenizer
        self._backend = _backend(tokenizer)
        self._cut = _cuts(tokenizer, written) if self._backend is not None else None
        self._known: dict[str, list[int]] = {}
        self._special: dict[str, list[int]] = {}
        self._characters = 0
        self._latest = _Cut("", [0])

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        """The ids of a text. `special`: with what the tokenizer puts around every text."""
        if special:
            return list(self._special.get(text) or self._asked(text, special=True))
        if self._cut is None:
            return list(self._known.get(text) or self._asked(text))
        latest = self._latest
        kept, pieces, made = self._cut_after(latest, text, self._cut)
        if any(piece not in self._known for piece in pieces):
            self._learn(pieces, self._known)
        found = [self._known[piece] for piece in pieces]
        begin = latest.ends[kept]
        made.ids = [*latest.ids[:begin], *chain.from_iterable(found)]
        made.ends = [*latest.ends[: kept + 1], *(begin + count for count in accumulate(map(len, found)))]
        self._latest = made
        return made.ids.copy()

    def learning(self, texts: Iterable[str], *, special: bool = False) -> Callable[[], None]:
        """The call that tokenizes what is not known of these texts, at once and on all cores. Another thread may make
        it while this one asks for ids of what is known."""
        if self._backend is None:
            return lambda: None
        wanted, known = list(texts), self._special if special else self._known
        if not special and self._cut is not None:
            latest, whole, wanted = _Cut("", [0]), wanted, []
            for text in whole:
                _, pieces, latest = self._cut_after(latest, text, self._cut)
                wanted += pieces
        self._as_asked()
        return lambda: self._learn(wanted, known, special=special)

    @property
    def is_full(self) -> bool:
        """Whether more is remembered than is worth its memory."""
        return self._characters > _CHARACTERS

    def forget(self) -> None:
        """Remember nothing, if it is full."""
        if self.is_full:
            self._known, self._special, self._characters = {}, {}, 0

    def _learn(self, wanted: Iterable[str], known: dict[str, list[int]], *, special: bool = False) -> None:
        new = [piece for piece in dict.fromkeys(wanted) if piece not in known]
        if not new:
            return
        self._as_asked()
        for piece, encoding in zip(new, self._backend.encode_batch_fast(new, add_special_tokens=special), strict=True):
            known[piece] = encoding.ids
            self._characters += len(piece)

    def decode(self, ids: list[int]) -> str:
        """The text of ids, with special tokens."""
        if self._backend is not None:
            return str(self._backend.decode(ids, skip_special_tokens=False))
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _asked(self, text: str, *, special: bool = False) -> Sequence[int]:
        ids: Sequence[int] = self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return ids

    def _as_asked(self) -> None:
        """Set the tokenizer as transformers does for a call without options; others may have called it with some."""
        backend = self._backend
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        if backend.encode_special_tokens:
            backend.encode_special_tokens = False

    @staticmethod
    def _cut_after(latest: _Cut, text: str, cut: re.Pattern[str]) -> tuple[int, list[str], _Cut]:
        """How many pieces of the latest text this one begins with, the pieces that follow, and where it is cut."""
        places = latest.places
        kept = next(
            (
                number
                for number in range(len(places) - 1, max(0, len(places) - 1 - _BACK), -1)
                if cut.match(text, places[number]) and text.startswith(latest.text[: places[number]])
            ),
            0,
        )
        begin = places[kept]
        new = [begin, *(found.start() for found in cut.finditer(text, begin) if found.start() > begin)]
        pieces = [text[one:other] for one, other in pairwise([*new, len(text)])]
        return kept, pieces, _Cut(text, [*places[:kept], *new])


def _backend(tokenizer: Any) -> Any:
    """What transformers calls for texts; None: its class does something of its own."""
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast  # noqa: PLC0415  slow to load

    theirs = dict.fromkeys(("__call__", "decode"), PreTrainedTokenizerBase)
    theirs |= dict.fromkeys(("_encode_plus", "_decode", "_convert_encoding"), PreTrainedTokenizerFast)
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or getattr(tokenizer, "split_special_tokens", False):
        return None
    plain = all(getattr(type(tokenizer), name) is getattr(base, name, None) for name, base in theirs.items())
    backend = tokenizer.backend_tokenizer
    return backend if plain and hasattr(backend, "encode_batch_fast") else None


def _cuts(tokenizer: Any, written: str) -> re.Pattern[str] | None:
    """Where a text may be cut; None: nowhere.

    Added tokens that are looked for in the text as it is are found from left to right, at each place the longest. None
    can reach across the beginning of another whose first character is in the middle of none, unless it takes the white
    space before it.
    """
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
    found_first = [token for token in added if not token.normalized]
    if any(token.single_word for token in added):
        return None
    inner = {character for token in found_first for character in token.content[1:]}
    greedy = {token.content[:1] for token in found_first if token.lstrip}
    shown = {str(token) for token in tokenizer.special_tokens_map.values() if isinstance(token, str)}
    cuts = [
        token.content
        for token in found_first
        if token.content
        and not token.content[0].isspace()
        and token.content[0] not in inner | greedy
        and (token.content in written or token.content in shown)
    ]
    return re.compile("|".join(map(re.escape, cuts))) if cuts else None
