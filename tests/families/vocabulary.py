"""Small tokenizers of the kinds that model families have: templates come without one.

Each knows every byte, and joins what real ones join: runs of spaces and line ends, and a word's first letter with the
space before it. Such tokens can lie across the border of prompt and answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

Kind = Literal["byte_level", "neox", "prefix", "legacy", "phi3", "first", "unigram"]
"""`byte_level`: as GPT-2, Llama 3 and Qwen. `neox`: the same as GPT-NeoX sets it, whose offsets leave out spaces.
`legacy`: SentencePiece as in Llama 2, with a space before every text and after every special token, and BOS before
every text. `phi3`: the same with special tokens that swallow the white space after them. `first`: the same with a space
only at the beginning. `prefix`: bytes, with a space before every text as in `legacy`. `unigram`: as in T5, with a space
as in `legacy`, and EOS after every text."""

_SPACE = "▁"
_SHOWN = [chr(code) for code in range(33, 127)]
_WORDS = ("It", "is", "on", "its", "way", "to", "the", "Where", "order", "indented")


def small_tokenizer(kind: Kind, special: Sequence[str], *, begin: str, end: str) -> Any:
    """A tokenizer of transformers. `special`: its special tokens beside those that begin and end a text."""
    kinds = {"unigram": _unigram, **dict.fromkeys(("byte_level", "neox", "prefix"), _byte_level)}
    made = kinds.get(kind, _sentencepiece)(kind)
    known = dict.fromkeys([*special, begin, end])
    made.add_special_tokens([AddedToken(one, special=True, rstrip=kind == "phi3" and one != begin) for one in known])
    around = {"unigram": f"$A {end}", **dict.fromkeys(("legacy", "phi3", "first"), f"{begin} $A")}
    if kind in around:
        ids = [(one, made.token_to_id(one)) for one in (begin, end)]
        made.post_processor = processors.TemplateProcessing(single=around[kind], special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=begin, eos_token=end)


def _byte_level(kind: Kind) -> Tokenizer:
    runs = ["ĠĠ", "ĠĠĠĠ", "ĊĊ"]
    merges = [("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("Ċ", "Ċ")]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = sorted({f"Ġ{word[0]}" for word in _WORDS})
    merges += [("Ġ", word[1]) for word in words]
    tokenizer = Tokenizer(models.BPE({one: i for i, one in enumerate([*letters, *runs, *words])}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "prefix", trim_offsets=kind == "neox")
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "neox":
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def _sentencepiece(kind: Kind) -> Tokenizer:
    runs = [_SPACE * 2, _SPACE * 4]
    merges = [(_SPACE, _SPACE), (_SPACE * 2, _SPACE * 2)]
    words = sorted({_SPACE + word[0] for word in _WORDS})
    merges += [(_SPACE, word[1]) for word in words]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), _SPACE, *_SHOWN, *runs, *words]
    model = models.BPE(
        {one: i for i, one in enumerate(pieces)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    if kind != "first":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _unigram(kind: Kind) -> Tokenizer:
    del kind
    words = [_SPACE + word for word in _WORDS]
    pieces = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    pieces += [(one, -8.0) for one in [_SPACE, *_SHOWN]] + [(one, -9.0) for one in [_SPACE * 2, _SPACE * 4, *words]]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    # T5's own table maps other white space to a space, and joins runs of it
    tokenizer.normalizer = normalizers.Replace(Regex("[\n\t ]+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(_SPACE, prepend_scheme="always")]
    )
    return tokenizer
