"""The demo's base model: `python -m examples.tiny_base [DIR]` pretrains it in about a minute on two CPU cores.

A Llama of 5.6 million parameters with a tokenizer and a chat template of its own, saved as an ordinary Hugging Face
folder. It needs no download: its corpus is what every Python installation carries, and chats that `corpus.py` makes up.
It knows nothing and answers in any style at all, but it can be tuned, quantized and served like its large relatives.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import random
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DEFAULT_DIR = Path(".cache/tiny-base")
SOURCES = ("tiny_base.py", "induction.py", "corpus.py", "words.py", "chat_template.jinja")
COMPLETE = "recipe.json"
IGNORED = -100
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True)
class Recipe:
    """All widths are multiples of 64: nf4 quantizes in blocks of 64, and attention kernels like heads of 64."""

    vocabulary: int = 2048
    hidden: int = 256
    intermediate: int = 640
    layers: int = 6
    heads: int = 4
    positions: int = 2048
    chats: int = 2300
    prose: float = 0.4
    """Share of the paragraphs that is read."""
    longest: int = 512
    """Tokens of a training document; longer prompts work less well."""
    tokens_per_step: int = 1024
    """Many small steps; from about 4,096 on, logits are so large that the C library returns them to the system on every
    free, and a token takes three times as long."""
    learning_rate: float = 3e-3
    embedding_rate: float = 0.03
    warmup: float = 0.05
    seed: int = 0


THREADS = 2
"""Another number adds up in another order, and another base comes of it. More only wait for each other in a model this
small."""


def ensure(folder: Path = DEFAULT_DIR, quiet: bool = False) -> Path:
    """The folder of the base model; it is trained first unless this very recipe was trained into it before.

    The model is built in a temporary folder and renamed, so that `folder` is complete or absent.
    """
    folder = Path(folder)
    key = recipe_key()
    if is_complete(folder, key):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        build(building, Recipe(), quiet)
        # for whoever loads it, also as another user in a container: the weights are saved for their owner alone
        building.chmod(0o755)
        for file in building.iterdir():
            file.chmod(0o644)
        (building / COMPLETE).write_text(
            json.dumps({"key": key, **asdict(Recipe())}, indent=2) + "\n", encoding="utf-8"
        )
        if not is_complete(folder, key):  # another process may have been faster
            shutil.rmtree(folder, ignore_errors=True)
            building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def recipe_key() -> str:
    """SHA-256 over the sources that decide what the model becomes."""
    digest = hashlib.sha256()
    for name in SOURCES:
        text = (HERE / name).read_text(encoding="utf-8")
        # The syntax tree knows neither comments nor layout: touching those rebuilds nothing.
        digest.update((ast.dump(ast.parse(text)) if name.endswith(".py") else text).encode())
    return digest.hexdigest()


def is_complete(folder: Path, key: str) -> bool:
    try:
        return bool(json.loads((folder / COMPLETE).read_text(encoding="utf-8")).get("key") == key)
    except (OSError, ValueError):
        return False


def build(folder: Path, recipe: Recipe, quiet: bool = False) -> None:
    """Make the corpus, the tokenizer and the model, and save them as a Hugging Face folder."""
    import torch  # noqa: PLC0415 - seconds of import that a cached model does not need

    from examples import corpus  # noqa: PLC0415

    rng = random.Random(recipe.seed)
    prose, chats = corpus.prose(recipe.prose, rng), corpus.chats(recipe.chats, rng)
    tokenizer = make_tokenizer(recipe, prose, chats)
    documents = [encode_text(tokenizer, text) for text in prose] + encode_chats(tokenizer, chats)
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.random.fork_rng(devices=[]):
            model = make_model(recipe, tokenizer)
            pretrain(model, documents, recipe, quiet)
    finally:
        torch.set_num_threads(threads)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def make_tokenizer(recipe: Recipe, prose: list[str], chats: list[list[dict[str, str]]]) -> Any:
    """Byte-level BPE. Role names are in the corpus as often as turns are, so each of them becomes one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[END, START, STOP],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(
        [*prose, *(message[part] for chat in chats for message in chat for part in ("role", "content"))], trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=STOP,
        pad_token=END,
        additional_special_tokens=[START],
        model_max_length=recipe.positions,
        chat_template=(HERE / "chat_template.jinja").read_text(encoding="utf-8"),
    )


def make_model(recipe: Recipe, tokenizer: Any) -> Any:
    """A Llama with random weights. An answer ends at the end of the turn or of the text."""
    import torch  # noqa: PLC0415
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    from examples.induction import write_induction  # noqa: PLC0415

    torch.manual_seed(recipe.seed)
    stops = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        head_dim=recipe.hidden // recipe.heads,
        max_position_embeddings=recipe.positions,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=stops,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    write_induction(model, torch.Generator().manual_seed(recipe.seed))
    # A model this small loses the thread at temperature 1, which a server would otherwise take.
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.3, bos_token_id=None, eos_token_id=stops, pad_token_id=tokenizer.pad_token_id
    )
    return model


Document = tuple[list[int], list[int]]
"""Token ids, and the ids to be predicted: `IGNORED` where nothing is to be learnt."""


def encode_text(tokenizer: Any, text: str) -> Document:
    ids = [*tokenizer(text).input_ids, tokenizer.pad_token_id]
    return ids, ids


def encode_chats(tokenizer: Any, chats: list[list[dict[str, str]]]) -> list[Document]:
    """Only what the assistant says is learnt: questions are drawn at random, and learning to guess them is wasted."""
    encoded = tokenizer.apply_chat_template(chats, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    return [
        (ids, [token if learnt else IGNORED for token, learnt in zip(ids, mask, strict=True)])
        for ids, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    ]


def pretrain(model: Any, documents: list[Document], recipe: Recipe, quiet: bool = False) -> list[float]:
    """Train on the answers and texts of `documents`; returns the mean loss of every step."""
    import torch  # noqa: PLC0415
    import torch.nn.functional as F  # noqa: PLC0415

    documents = [(ids[: recipe.longest], targets[: recipe.longest]) for ids, targets in documents]
    steps = batches(documents, recipe.tokens_per_step, random.Random(recipe.seed))
    optimizer = make_optimizer(model, recipe)
    losses: list[float] = []
    started = time.monotonic()
    model.train()
    for number, rows in enumerate(steps, 1):
        longest = max(len(ids) for ids, _ in rows)
        tokens = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows], device=model.device)
        targets = torch.tensor(
            [wanted + [IGNORED] * (longest - len(wanted)) for _, wanted in rows], device=model.device
        )
        # Padding follows the text, so causal attention never sees it, and no mask is needed.
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate(number / len(steps), recipe.warmup)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if not quiet and (number % 20 == 0 or number == len(steps)):
            left = (time.monotonic() - started) / number * (len(steps) - number)
            recent = sum(losses[-20:]) / len(losses[-20:])
            print(f"tiny base: step {number}/{len(steps)}  loss {recent:.2f}  about {left:.0f} s left", flush=True)
    model.eval()
    return losses


def batches(documents: list[Document], tokens: int, rng: random.Random) -> list[list[Document]]:
    """Documents of similar length together, at most `tokens` with padding, in random order.

    One document a row, as a prompt is at serving: rows packed with several documents taught less (measured).
    """
    result: list[list[Document]] = []
    rows: list[Document] = []
    for document in sorted(rng.sample(documents, len(documents)), key=lambda document: len(document[0])):
        if rows and (len(rows) + 1) * len(document[0]) > tokens:
            result.append(rows)
            rows = []
        rows.append(document)
    result.append(rows)
    rng.shuffle(result)
    return result


def make_optimizer(model: Any, recipe: Recipe) -> Any:
    """AdamW; embeddings are ten times as large as other weights and take steps ten times as long."""
    import torch  # noqa: PLC0415

    embedding = model.model.embed_tokens.weight
    rest = [weight for weight in model.parameters() if weight is not embedding]
    groups = [{"params": [embedding], "peak": recipe.embedding_rate}, {"params": rest, "peak": recipe.learning_rate}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)


def rate(done: float, warmup: float) -> float:
    """Share of the peak learning rate: linear rise, then linear fall to zero."""
    return min(done / warmup, (1 - done) / (1 - warmup)) if warmup else 1 - done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=DEFAULT_DIR, help=f"where it is kept (default {DEFAULT_DIR})"
    )
    parser.add_argument("--quiet", action="store_true", help="print only the folder")
    options = parser.parse_args()
    print(ensure(options.folder, options.quiet))


if __name__ == "__main__":
    main()
