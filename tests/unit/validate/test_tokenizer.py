"""Token counts by the base's own tokenizer and template. The base of these tests has one token per byte."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from services.validate.domain.content import Row
from services.validate.domain.findings import Finding
from services.validate.tokenizer import Tokenizer, load
from shared.base import ProfileOverride, hub
from shared.errors import InputError, TransientError
from tests.support.data.byte_base import CHATML, CONTEXT
from tests.support.data.datasets import good
from tests.unit.validate.conftest import Examine, chats, completions, preferences

# <|im_start|> role \n content <|im_end|> \n
FRAME = 4


def chat(*messages: dict[str, Any], **beside: Any) -> Row:
    return Row(1, {"messages": list(messages), **beside}, "chat")


USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}
# the line end after the last <|im_end|> is never trained, so it is not part of the sequence
TURNS = FRAME + len("user" + "hi") + FRAME + len("assistant" + "hello") - 1


def counted(tokenizer: Tokenizer, rows: Sequence[Row]) -> list[tuple[int, ...] | Finding]:
    """What is measured of rows of one batch."""
    (measured,) = tokenizer.measure([rows])
    return [found for _, found in measured]


def test_a_chat_is_counted_as_its_template_writes_it(base: Path) -> None:
    assert counted(load(str(base), "tiny"), [chat(USER, ANSWER), chat(USER, {**ANSWER, "content": "é"})]) == [
        (TURNS,),
        (TURNS - len("hello") + 2,),
    ]


@pytest.mark.parametrize("remembered", [10**9, 200, 0])
def test_batches_that_overlap_are_measured_as_each_by_itself(
    base: Path, remembered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.conversation.tokens._CHARACTERS", remembered)
    batches = [
        [chat(USER, {**ANSWER, "content": "x" * (7 * number + at % 5)}) for at in range(number % 4 + 1)]
        for number in range(12)
    ]
    apart = [list(zip(rows, counted(load(str(base), "tiny"), rows), strict=True)) for rows in batches]
    assert list(load(str(base), "tiny").measure(iter(batches))) == apart


def test_what_comes_after_the_last_trained_turn_is_not_counted(base: Path) -> None:
    row = chat(USER, ANSWER, USER, {**ANSWER, "weight": 0})
    assert counted(load(str(base), "tiny"), [row]) == [(TURNS,)]


def test_parts_tools_and_old_function_calls_reach_the_template(base: Path) -> None:
    tokenizer = load(str(base), "tiny")
    parts = {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}
    function = {"name": "look", "arguments": '{"a":   1}'}
    call = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    old = {"role": "assistant", "function_call": function}
    tool = {"type": "function", "function": {"name": "look"}}
    [(joined,), (called,), (called_of_old,), (offered,), (offered_of_old,)] = counted(
        tokenizer,
        [
            chat(parts, ANSWER),
            chat(USER, call),
            chat(USER, old),
            chat(USER, ANSWER, tools=[tool]),
            chat(USER, ANSWER, functions=[tool["function"]]),
        ],
    )
    assert joined == TURNS + 1  # vLLM joins parts with a line end
    assert called == called_of_old == TURNS - len("hello") + len('look{"a": 1}')
    sent = {"type": "function", "function": {"name": "look", "description": None, "parameters": None}}  # as vLLM does
    assert offered == offered_of_old == TURNS + FRAME + len("system") + len(json.dumps([sent]))


def test_a_completion_gets_the_end_token_and_a_pair_has_two_sequences(base: Path) -> None:
    tokenizer = load(str(base), "tiny")
    assert counted(tokenizer, [Row(1, {"prompt": "ab", "completion": "c"}, "completion")]) == [(4,)]
    pair = {"input": {"messages": [USER]}, "preferred_completion": [ANSWER]}
    row = Row(1, {**pair, "non_preferred_completion": [{**ANSWER, "content": "go"}]}, "preference")
    assert counted(tokenizer, [row]) == [(TURNS, TURNS - 3)]


def test_only_completions_get_what_the_tokenizer_adds_by_itself(make_base: Callable[..., Path]) -> None:
    """A chat template writes its own beginning; with both, the text would begin twice."""
    folder = make_base()
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text())
    start = {"id": "<|im_start|>", "ids": [256], "tokens": ["<|im_start|>"]}
    single = [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    added = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": {"<|im_start|>": start}}
    path.write_text(json.dumps({**settings, "post_processor": added}))
    tokenizer = load(str(folder), "beginning")
    assert counted(tokenizer, [Row(1, {"prompt": "ab", "completion": "c"}, "completion")]) == [(5,)]
    assert counted(tokenizer, [chat(USER, ANSWER)]) == [(TURNS,)]


def test_what_a_template_refuses_is_a_finding_of_that_row_alone(base: Path) -> None:
    refused, fine = counted(load(str(base), "tiny"), [chat({**USER, "role": "developer"}, ANSWER), chat(USER, ANSWER)])
    assert isinstance(refused, Finding)
    assert (refused.code, refused.field) == ("chat_template", "messages")
    assert "the developer role is not supported" in refused.message
    assert fine == (TURNS,)


def test_what_is_set_for_the_template_is_counted(make_base: Callable[..., Path]) -> None:
    template = CHATML + "{% if add_generation_prompt and quiet %}abc{% endif %}"
    folder = str(make_base(template))
    assert counted(load(folder, "tiny"), [chat(USER, ANSWER)]) == [(TURNS,)]
    quiet = ProfileOverride(chat_template_kwargs={"quiet": True})
    [refused] = counted(load(folder, "tiny", quiet), [chat(USER, ANSWER)])
    assert isinstance(refused, Finding)  # with it, the server's prompt is one that the answer does not follow


def test_the_context_is_the_smallest_limit_that_the_base_names(base: Path, make_base: Callable[..., Path]) -> None:
    assert load(str(base), "tiny").context == CONTEXT
    assert load(str(make_base(context=64)), "tiny").context == 64


def test_a_base_without_a_chat_template_is_told_with_the_remedy(make_base: Callable[..., Path], run: Examine) -> None:
    tokenizer = load(str(make_base(template=None)), "plain")
    with pytest.raises(InputError, match=r"plain has no chat template.*instruction-tuned") as caught:
        run(chats(10), tokenizer=tokenizer)
    assert (caught.value.code, caught.value.param) == ("base_has_no_chat_template", "model")
    assert run(completions(10), tokenizer=tokenizer).report.ok


def test_a_base_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load(str(tmp_path), "nowhere")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(("offline", "kind"), [(False, TransientError), (True, InputError)])
def test_a_hub_that_goes_away_is_tried_again_unless_offline_is_wanted(
    offline: bool, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(location: str, **_: Any) -> None:
        raise LocalEntryNotFoundError("no connection, and it is not in the cache")

    monkeypatch.setattr("shared.base.hub.answers", lambda repository: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: offline)
    with pytest.raises(kind, match="acme/tiny"):
        load("acme/tiny", "acme/tiny")


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A hub that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setattr(
            "huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True
        )  # would ask for a list once a day
        monkeypatch.setattr("shared.base.hub.PATIENCE", 0.2)
        yield listening


def connections(listening: socket.socket) -> int:
    listening.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            count += 1
    return count


def test_a_hub_that_does_not_answer_is_asked_once(silent_hub: socket.socket) -> None:
    with pytest.raises(TransientError, match="does not answer while loading acme/absent, and there is no local copy"):
        load("acme/absent", "acme/absent")
    assert connections(silent_hub) == 1


def test_a_local_base_asks_no_hub(silent_hub: socket.socket, base: Path) -> None:
    load(str(base), "tiny")
    assert connections(silent_hub) == 0


def test_a_path_is_not_asked_of_a_hub(silent_hub: socket.socket, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        load(str(tmp_path / "mistyped"), "acme/tiny")
    assert connections(silent_hub) == 0


def test_a_copy_in_the_cache_counts_where_no_hub_answers(
    silent_hub: socket.socket, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--acme--tiny"
    shutil.copytree(base, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert counted(load("acme/tiny", "acme/tiny"), [chat(USER, ANSWER)]) == [(TURNS,)]
    assert connections(silent_hub) == 1


def test_a_refusal_of_the_hub_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert hub.answers("acme/tiny")
        serving.join()


def test_the_distribution_counts_every_row(base: Path, run: Examine) -> None:
    rows = [{"prompt": "p" * length, "completion": "c"} for length in [*range(1, 20), 98]]  # 3 to 21, and 100 tokens
    report = run(rows, tokenizer=load(str(base), "tiny"), splits={"validation": 0, "test": 0}).report
    tokens = report.training.tokens
    assert tokens is not None
    assert (tokens.total, tokens.min, tokens.median, tokens.p95, tokens.max) == (328, 3, 12, 21, 100)
    assert tokens.mean == 16.4
    assert report.splits["train"].tokens == 328
    assert report.estimate is not None and report.estimate.training_tokens == 3 * 328


def test_preference_tokens_are_those_of_both_sequences(base: Path, run: Examine) -> None:
    examined = run(preferences(10), tokenizer=load(str(base), "tiny"))
    assert examined.training is not None and examined.report.training.tokens is not None
    assert examined.training.longest < examined.report.training.tokens.max < 2 * examined.training.longest


def test_a_row_that_is_several_sequences_counts_as_one_row_with_the_tokens_of_all(
    make_base: Callable[..., Path], run: Examine
) -> None:
    # like Qwen 3's template: only the last answer is written with thoughts
    thinking = "{% if loop.last and message.role == 'assistant' %}* {% endif %}"
    base = make_base(CHATML.replace("{{ message.content }}", thinking + "{{ message.content }}"))
    tokenizer = load(str(base), "tiny")
    rows = [{"messages": [USER, ANSWER, {**USER, "content": f"{n}"}, ANSWER]} for n in range(10)]
    [measured] = counted(tokenizer, [chat(*rows[0]["messages"])])
    assert not isinstance(measured, Finding)
    first, second = measured
    report = run(rows, tokenizer=tokenizer, splits={"validation": 0, "test": 0}).report
    train = report.splits["train"]
    assert (train.examples, train.tokens) == (10, 10 * (first + second))
    assert report.estimate is not None and report.estimate.training_tokens == report.estimate.epochs * train.tokens


def test_a_check_alone_counts_without_torch(base: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(good(12))
    program = (
        "import sys; from pathlib import Path; from shared.base.reading import without_torch; without_torch()\n"
        "from services.validate.check import check; from shared.events import JobSpec\n"
        "from shared.settings import ValidationSettings\n"
        "report = check(Path(sys.argv[1]), spec=JobSpec(), base_location=sys.argv[2], limits=ValidationSettings())\n"
        "print(report.ok, report.training.tokens.total > 0, sys.modules['torch'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "rows.jsonl"), str(base)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True True None"


def test_limits_of_the_job(base: Path, run: Examine) -> None:
    """`auto` is the base's context; more than that is refused before anything is read."""
    tokenizer = load(str(base), "tiny")
    assert run(chats(10), tokenizer=tokenizer).report.max_length == CONTEXT
    with pytest.raises(InputError, match=f"max_length is 4096, but tiny reads at most {CONTEXT} tokens") as caught:
        run(chats(10), tokenizer=tokenizer, hyperparameters={"max_length": 4096})
    assert caught.value.param == "hyperparameters.max_length"
