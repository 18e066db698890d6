"""Tokens of rows that are kept for other runs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from services.trainer.engine.data import kept
from services.trainer.engine.data.dataset import Dataset, Encoder
from tests.support.data.micro_base import chat_row, make_tokenizer, support_rows, write_rows

REWRITES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}(thinking) {% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PAIR = {
    "input": {"messages": [{"role": "user", "content": "Two?"}]},
    "preferred_completion": [{"role": "assistant", "content": "good"}],
    "non_preferred_completion": [{"role": "assistant", "content": "bad answer"}],
}


def shown(dataset: Dataset | None) -> Any:
    assert dataset is not None
    return dataset.dropped, [
        [[(e.tokens.tolist(), e.trained.tolist()) for e in item] for item in row] for row in dataset.rows
    ]


def encoded(folder: Path, rows: list[dict[str, Any]], form: Any = "chat") -> Dataset:
    tokenizer = make_tokenizer(REWRITES)
    path = write_rows(folder / "rows.jsonl", rows)
    return Encoder(tokenizer, (tokenizer.eos_token_id,), form).read(path, "training_file")


def two_turns(weight: int = 1) -> dict[str, Any]:
    first, second = (chat_row(text, "yes")["messages"] for text in ("One?", "Two?"))
    return {"messages": [*first, *({**message, "weight": weight} for message in second)]}


@pytest.mark.parametrize(
    ("form", "rows"),
    [
        ("chat", [two_turns(), *support_rows(3), {"messages": [{"role": "user", "content": "a"}]}, two_turns(0)]),
        ("preference", [PAIR, PAIR]),
        ("completion", [{"prompt": "a", "completion": " b"}, {"prompt": "", "completion": "c"}]),
    ],
)
def test_what_is_kept_is_read_back(tmp_path: Path, form: Any, rows: list[dict[str, Any]]) -> None:
    dataset = encoded(tmp_path, rows, form)
    kept.save(tmp_path / "kept", "key", dataset)
    assert shown(kept.load(tmp_path / "kept", "key")) == shown(dataset)
    assert not list((tmp_path / "kept").glob("*.tmp"))


def test_a_damaged_file_is_not_used(tmp_path: Path) -> None:
    kept.save(tmp_path, "key", encoded(tmp_path, support_rows(30)))
    file = tmp_path / "key.npz"
    whole = file.read_bytes()
    assert kept.load(tmp_path, "another") is None
    for place in range(0, len(whole), 37):
        file.write_bytes(whole[:place])
        assert kept.load(tmp_path, "key") is None
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        file.write_bytes(changed)
        found = kept.load(tmp_path, "key")  # a byte of the file's frame may not count
        assert found is None or shown(found) == shown(encoded(tmp_path, support_rows(30)))


def test_the_name_depends_on_all_that_makes_the_tokens(tmp_path: Path) -> None:
    tokenizer, other, dated = make_tokenizer(), make_tokenizer(REWRITES), make_tokenizer("{{ strftime_now('%d') }}")
    path = write_rows(tmp_path / "a.jsonl", support_rows(3))
    same = write_rows(tmp_path / "b.jsonl", support_rows(3))
    more = write_rows(tmp_path / "c.jsonl", support_rows(4))
    key = kept.key_of(path, tokenizer, [2], "chat", {})
    assert key == kept.key_of(same, make_tokenizer(), [2], "chat", {})
    longer = make_tokenizer()
    longer.add_tokens(["order"])
    others = [
        kept.key_of(more, tokenizer, [2], "chat", {}),
        kept.key_of(path, other, [2], "chat", {}),
        kept.key_of(path, longer, [2], "chat", {}),
        kept.key_of(path, tokenizer, [2, 1], "chat", {}),
        kept.key_of(path, tokenizer, [2], "completion", {}),
        kept.key_of(path, tokenizer, [2], "chat", {"enable_thinking": False}),
    ]
    assert len({key, *others}) == 7
    assert kept.key_of(path, dated, [2], "chat", {}) is None


def test_old_files_and_the_oldest_of_many_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_FILES", 3)
    dataset = encoded(tmp_path, support_rows(1))
    folder = tmp_path / "kept"
    now = time.time()
    for number in range(4):
        kept.save(folder, f"key{number}", dataset)
        os.utime(folder / f"key{number}.npz", (now, now - 100 + number))
    (folder / "left.1.tmp").write_bytes(b"")
    os.utime(folder / "left.1.tmp", (now, now - kept.MOST_SECONDS - 1))
    kept.save(folder, "new", dataset)
    assert sorted(path.name for path in folder.iterdir()) == ["key2.npz", "key3.npz", "new.npz"]


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept.save(tmp_path / "file" / "kept", "key", encoded(tmp_path, support_rows(1)))
    assert kept.load(tmp_path / "file" / "kept", "key") is None
    assert json.dumps([path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"]) == "[]"
