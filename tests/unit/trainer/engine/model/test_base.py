"""A base that cannot be trained is refused with its reason before anything is tokenized."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from services.trainer.domain.plan import Plan
from services.trainer.engine.data.dataset import Encoder
from services.trainer.engine.messages import ErrorDocument, ExitCode, Failed, parse_message
from services.trainer.engine.model import weights
from services.trainer.engine.model.base import inspect_base
from shared.errors import InputError, TransientError
from tests.unit.trainer.engine.test_command import engine
from tests.unit.trainer.engine.test_training import train

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    """A copy of the micro base that a test may spoil."""
    return Path(shutil.copytree(base, tmp_path / "spoilt"))


def change(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def shard(folder: Path, *, without: str | None = None) -> None:
    """Split the weights into two files, of which one may be missing."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {f"model-0000{n}-of-00002.safetensors": sorted(tensors)[n - 1 :: 2] for n in (1, 2)}
    for file, names in shards.items():
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, names in shards.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if without is not None:
        (folder / without).unlink()


def quantized(folder: Path) -> None:  # as gpt-oss is published
    change(folder, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})


def remote_code(folder: Path) -> None:
    change(folder, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})


def encoder_decoder(folder: Path) -> None:
    change(folder, model_type="bart", architectures=["BartForConditionalGeneration"])


def classifier(folder: Path) -> None:
    change(folder, architectures=["LlamaForSequenceClassification"])


def unknown_type(folder: Path) -> None:
    change(folder, model_type="llama9000")


def no_type(folder: Path) -> None:
    change(folder, model_type=None)


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def half_a_download(folder: Path) -> None:
    shard(folder, without="model-00002-of-00002.safetensors")


def cut_off(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def no_linear_layers(folder: Path) -> None:  # GPT-2 has transposed ones of its own, and the server no adapters for it
    text = {"vocab_size": 400, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    (folder / "config.json").write_text(
        json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **text})
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (quantized, r"quantized already \(mxfp4\); name the original \(bfloat16\) model"),
        (remote_code, "brings Python code of its own, which is never run"),
        (encoder_decoder, "BartForConditionalGeneration is an encoder-decoder; name a model that only has a decoder"),
        (classifier, "LlamaForSequenceClassification does not generate text"),
        (unknown_type, r"transformers [\d.]+ does not know models of the type 'llama9000'"),
        (no_type, "finds no model_type in its config.json"),
        (no_config, "lacks a readable config.json"),
        (pickled, r"its weights \(pytorch_model.bin\) are not in the safetensors format"),
        (no_weights, "has no weights: neither model.safetensors nor"),
        (half_a_download, "lacks model-00002-of-00002.safetensors, which model.safetensors.index.json names"),
        (cut_off, "model.safetensors is cut off or damaged; download it again"),
        (no_linear_layers, "its text decoder has no linear layers"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_tokenization(
    make_plan: MakePlan,
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    reason: str,
):
    spoil(folder)
    monkeypatch.setattr(Encoder, "read", lambda *_: pytest.fail("rows were tokenized"))
    with pytest.raises(InputError, match=rf"base model 'micro' cannot be tuned: .*{reason}") as caught:
        train(make_plan(base={"id": "micro", "location": str(folder)}), tmp_path / "out")
    assert (caught.value.code, caught.value.param) == ("unsupported_base", "model")


def test_weights_in_several_files_are_trained(make_plan: MakePlan, tmp_path: Path, folder: Path):
    shard(folder)
    plan = make_plan(base={"id": "micro", "location": str(folder)}, hyperparameters={"n_epochs": 1, "batch_size": 20})
    assert train(plan, tmp_path / "out").steps == 2


def test_the_layers_of_a_base_that_the_server_cannot_change_at_all(make_plan: MakePlan):
    with pytest.raises(InputError, match="no linear layers that the server can change"):
        inspect_base(make_plan(served_linears=["c_attn"]))


# --- a hub


def on_a_hub(make_plan: MakePlan) -> Plan:
    return make_plan(base={"id": "acme/tiny", "location": "acme/tiny"})


def test_a_hub_that_does_not_answer_is_asked_again_later(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shared.base.hub.answers", lambda repository: False)
    with pytest.raises(TransientError, match="does not answer while loading 'acme/tiny', and there is no local copy"):
        inspect_base(on_a_hub(make_plan))


def test_the_process_says_that_another_try_may_succeed(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "plan.json").write_text(on_a_hub(make_plan).model_dump_json())
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    ended = engine(tmp_path / "plan.json", tmp_path / "out", "--events")
    assert ended.returncode == ExitCode.UNAVAILABLE
    document = ErrorDocument.model_validate_json((tmp_path / "out" / "error.json").read_bytes())
    assert document.message.startswith("the model hub does not answer while loading 'acme/tiny'")
    message = parse_message(ended.stdout.splitlines()[-1])
    assert isinstance(message, Failed)
    assert message.message == document.message


@pytest.mark.parametrize(("offline", "kind"), [(False, TransientError), (True, InputError)])
def test_a_hub_that_goes_away_is_tried_again_unless_offline_is_wanted(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, offline: bool, kind: type[Exception]
):
    def unreachable(location: str, **_: Any) -> None:
        raise OSError("no connection") from LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr("shared.base.hub.answers", lambda repository: True)
    monkeypatch.setattr("transformers.PretrainedConfig.get_config_dict", unreachable)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: offline)
    with pytest.raises(kind, match="acme/tiny"):
        inspect_base(on_a_hub(make_plan))


@pytest.mark.parametrize(("complete", "kind"), [(True, None), (False, TransientError)])
def test_a_copy_in_the_cache_counts_where_no_hub_answers(
    make_plan: MakePlan,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    complete: bool,
    kind: type[Exception] | None,
):
    repository = tmp_path / "models--acme--tiny"
    copy = Path(shutil.copytree(base, repository / "snapshots" / "abc"))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("shared.base.hub.answers", lambda repository: False)
    if kind is None:
        assert inspect_base(on_a_hub(make_plan)).parameters == inspect_base(make_plan()).parameters
        return
    (copy / "model.safetensors").unlink()
    with pytest.raises(kind, match="no local copy of the base's weights"):
        inspect_base(on_a_hub(make_plan))


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (["config.json", "model.safetensors"], None),
        (
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors"],
            "lacks model-00002-of-00002.safetensors",
        ),
        (["config.json", "pytorch_model.bin"], "not in the safetensors format"),
        (["config.json"], "has no weights"),
    ],
)
def test_the_weights_on_a_hub_are_looked_for_by_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], reason: str | None
):
    shard(folder)
    monkeypatch.setattr(weights, "list_repo_files", lambda repository: there)
    monkeypatch.setattr(weights, "hf_hub_download", lambda repository, name: folder / name)
    problem = weights.problem_of_weights("acme/tiny", silent=False)
    assert (problem is None) == (reason is None)
    assert (reason or "") in (problem or "")
