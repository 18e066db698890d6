"""Ten files as people have them: what ingest makes of each passes the validator, without a setting."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter

from services.ingest.sources.mine import mine
from services.validate.check import check
from shared.events import JobSpec
from shared.settings import ValidationSettings
from tests.unit.ingest.sources.conftest import jsonl

ROWS = 14


def table(header: list[str], row: Callable[[int], list[Any]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([header, *map(row, range(ROWS))])
    return text.getvalue()


def help_desk() -> bytes:
    header = ["Ticket ID", "Created At", "Customer Message", "Agent Response", "Satisfaction Score"]
    said = 'My "new" lamp no. {0}\r\n\r\nis broken; what now?'
    return table(header, lambda n: [n, f"2024-03-{n + 1:02}", said.format(n), f'Send it, "{n}",\nback.', 5]).encode()


def sharegpt() -> bytes:
    turns = [
        ("system", "Be kind."),
        ("human", "Question {0}?"),
        ("gpt", "Answer {0}."),
        ("human", "And?"),
        ("gpt", "No."),
    ]
    rows = [{"id": n, "conversations": [{"from": w, "value": t.format(n)} for w, t in turns]} for n in range(ROWS)]
    return jsonl(*rows).encode()


def alpaca() -> bytes:
    rows = [
        {"instruction": f"Do {n}", "input": "" if n % 2 else f"with {n}", "output": f"Did {n}"} for n in range(ROWS)
    ]
    return json.dumps(rows, indent=2).encode()


def annotators() -> bytes:
    rows = [
        {"prompt": f"Ask {n}", "prompt_id": str(n), "completions": [], "chosen": f"Good {n}", "rejected": f"Bad {n}"}
        for n in range(ROWS)
    ]
    return jsonl(*rows).encode()


def windows() -> bytes:
    return table(["Frage", "Antwort"], lambda n: [f"Größe {n} – passt’s?", f"Für {n} €: ja"], ";").encode("cp1252")


def excel() -> bytes:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer) as book:
        sheet = book.add_worksheet("Export")
        sheet.write(0, 0, "Support, March")
        sheet.merge_range(1, 1, 1, 2, "Customer")
        sheet.merge_range(1, 3, 1, 4, "Agent")
        sheet.write_row(2, 0, ["Ticket ID", "Name", "Message", "Name", "Response"])
        for n in range(ROWS):
            sheet.write_row(n + 3, 0, [n, "Ann", f"Question {n}", "Bob", f"Answer {n}"])
    return buffer.getvalue()


def nested() -> bytes:
    def ticket(n: int) -> dict[str, Any]:
        comments = [{"author": "requester", "body": f"Help {n}"}, {"author": "agent", "body": f"Done {n}"}]
        return {"id": n, "meta": {"tags": ["a"]}, "comments": comments}

    return json.dumps({"export": {"version": 2, "tickets": [ticket(n) for n in range(ROWS)]}}, indent=1).encode()


def packed() -> bytes:
    chat = [{"role": "user", "content": "Ask {0}"}, {"role": "assistant", "content": "Say {0}"}]
    rows = [{"messages": [m | {"content": m["content"].format(n)} for m in chat]} for n in range(ROWS)]
    return gzip.compress(jsonl(*rows).encode())


def emoji() -> bytes:
    said = ["Wo ist mein Paket 📦?", "¿Dónde está? 🤔", "荷物はどこ？", "أين الطرد؟ 👩‍👩‍👧", "Где посылка?"]
    return table(["question", "answer"], lambda n: [f"{said[n % 5]} {n}", f"{said[(n + 1) % 5]} ✅ {n}"]).encode()


def several_answers() -> bytes:
    header = ["ticket_id", "sender_type", "message", "sent_at"]
    said = ["customer", "agent", "agent", "customer", "agent"]
    rows = [
        [n, who, f"{who} {n}.{at}", f"2024-03-01T10:{at:02}:00Z"] for n in range(ROWS) for at, who in enumerate(said)
    ]
    text = io.StringIO()
    csv.writer(text).writerows([header, *reversed(rows)])
    return text.getvalue().encode()


FILES: dict[str, Callable[[], bytes]] = {
    "help_desk.csv": help_desk,
    "dump.jsonl": sharegpt,
    "alpaca.json": alpaca,
    "pairs.jsonl": annotators,
    "fragen.csv": windows,
    "export.xlsx": excel,
    "tickets.json": nested,
    "chats.jsonl.gz": packed,
    "languages.csv": emoji,
    "several.csv": several_answers,
}


@pytest.mark.parametrize("name", FILES)
def test_it_becomes_a_dataset_that_can_be_trained_on(name: str, tmp_path: Path) -> None:
    path, out = tmp_path / name, tmp_path / "rows.jsonl"
    path.write_bytes(FILES[name]())
    made = mine(path, out)
    assert (made.examples, made.left_out) == (ROWS, ())
    report = check(out, spec=JobSpec(), base_location=None, limits=ValidationSettings())
    assert report.ok, report.failure
    assert "unknown_key" not in report.training.warning_counts
    assert (report.training.usable, report.training.errors) == (ROWS, 0)
    assert report.method == ("dpo" if name == "pairs.jsonl" else "supervised")


@pytest.mark.parametrize("name", FILES)
def test_the_same_file_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name]())
    written = []
    for number in range(2):
        mine(path, tmp_path / f"{number}.jsonl")
        written.append((tmp_path / f"{number}.jsonl").read_bytes())
    assert written[0] == written[1]
