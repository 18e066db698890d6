"""The report page: hostile text stays text, nothing is loaded from elsewhere, the plot shows what was measured."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from services.evaluator.domain.answers import Answer, Variant
from services.evaluator.domain.examples import Example
from services.evaluator.domain.pictures.forest_plot import LEFT, RIGHT, forest_plot
from services.evaluator.domain.pictures.word_diff import word_diff
from services.evaluator.domain.questions.edge_prompts import EdgeResult, own_prompts
from services.evaluator.domain.tool_calls import ToolCall
from services.evaluator.evaluate import evaluate
from services.evaluator.report import Report, render
from shared.events import Gate, Interval, Served
from tests.support.data.jobs import make_training
from tests.support.data.reports import HOSTILE, make_report


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_text_is_shown_and_not_run() -> None:
    tags = Tags(render(make_report(), curves=None))
    assert [tag for tag, _ in tags.found].count("script") == 1
    assert not [tag for tag, _ in tags.found if tag == "img"]
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    assert HOSTILE in tags.text


def test_the_policy_of_the_page_admits_only_its_own_script() -> None:
    page = render(make_report(), curves=None)
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    policy = next(dict(a)["content"] or "" for tag, a in Tags(page).found if "http-equiv" in dict(a) and tag == "meta")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_nothing_is_loaded_from_elsewhere() -> None:
    for _, attributes in Tags(render(make_report("plain"), curves=b"png")).found:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_examples_come_with_the_biggest_change_first_and_their_filter_state() -> None:
    articles = [a for tag, a in Tags(render(make_report("some words"), curves=None)).found if tag == "article"]
    assert [article["data-state"] for article in articles] == ["better"] + ["same"] * 5
    assert articles[0]["data-line"] == "1"


def test_calls_are_shown_as_calls_and_not_as_json_in_a_text() -> None:
    call = ToolCall(name="track", arguments='{"order": 1}')
    asked = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": "{}"}}]}
    tool = {"type": "function", "function": {"name": "track"}}
    example = Example(
        line=1,
        messages=({"role": "user", "content": "where?"}, asked, {"role": "tool", "content": "here"}),
        tools=(tool,),
        reference=f"Sure.\n{call}",
        tool_calls=(call,),
    )
    answers: dict[Variant, list[Answer]] = {
        "base": [Answer(text='<tool_call>{"name": "track", "arg</tool_call>', finish_reason="stop")],
        "tuned": [Answer(text=str(call), tool_calls=(call,), finish_reason="tool_calls")],
    }
    evaluation = evaluate([example], answers, labels=None, gate=Gate(), seed=0)
    page = render(make_report(rows=1).model_copy(update={"evaluation": evaluation}), curves=None)
    calls = [re.sub(r"<[^>]+>", "", shown) for shown in re.findall(r'<div class="call.*?</div>', page)]
    assert calls == [
        "look {}",
        "track {&#34;order&#34;: 1}",
        "not a call {&#34;name&#34;: &#34;track&#34;, &#34;arg",
        "track {&#34;order&#34;: 1}",
    ]
    assert '<pre dir="auto">Sure.</pre>' in page
    assert "offered: track" in page
    assert "&lt;tool_call&gt;" not in page and "track({" not in page


def test_a_report_without_examples_renders() -> None:
    assert "There are no test examples" in render(make_report("x", rows=0), curves=None)


def test_the_page_says_how_long_answers_may_be_and_why() -> None:
    assert "may have 1,234 tokens: so be it." in render(make_report("so be it", rows=1), curves=None)


def test_the_page_says_whether_what_was_trained_is_what_is_served() -> None:
    asked = Served(rows=2, turns=2_214, server="0.32.0", template="3f2a91c07b1e")
    unasked = Served(not_asked="no render server is configured")
    for served, words in (
        (asked, "2,214 turns compared with vLLM 0.32.0: 0 differences, template 3f2a91c07b1e."),
        (unasked, "not compared with the server: no render server is configured."),
        (None, "not compared with the server."),
    ):
        plain = make_report("x", rows=1)
        shown = plain.model_copy(update={"training": plain.training.model_copy(update={"served": served})})
        assert f"What was trained, as served: {words}" in render(shown, curves=None)


def test_very_long_texts_are_cut_on_the_page_only() -> None:
    long = make_report("y" * 100_000, rows=1)
    assert "(80,000 more characters)" in render(long, curves=None)
    assert len(long.evaluation.rows[0].example.reference) == 100_000


def test_the_picture_puts_zero_gains_and_losses_in_their_places() -> None:
    gain = Interval(mean=0.4, low=0.3, high=0.5, confidence=0.95)
    loss = Interval(mean=-0.2, low=-0.3, high=-0.1, confidence=0.95)
    drawn = forest_plot({"rouge_l": gain}, {"rouge_l": loss}, chosen="rouge_l")
    up, down = drawn.lines[0].bars
    assert LEFT <= down.low < down.mean < down.high < drawn.zero < up.low < up.mean < up.high <= RIGHT
    assert (drawn.zero, "0") in drawn.ticks
    assert up.mean - drawn.zero == pytest.approx(2 * (drawn.zero - down.mean), abs=0.2)


def test_the_picture_of_no_difference_at_all_still_has_an_axis() -> None:
    nothing = Interval(mean=0.0, low=0.0, high=0.0, confidence=0.95)
    drawn = forest_plot({"rouge_l": nothing}, {}, chosen="rouge_l")
    assert len(drawn.ticks) >= 2
    assert drawn.lines[0].bars[0].mean == drawn.zero


@pytest.mark.parametrize(
    ("hyperparameters", "said"),
    [
        ({"quantization": "nf4"}, "rank 8, base in nf4; training loss"),
        ({"quantization": "none"}, "rank 8, base not quantized; training loss"),
        ({}, "rank 8; training loss"),  # of an older trainer
    ],
)
def test_it_says_what_the_base_was_in_while_it_trained(hyperparameters: dict[str, str], said: str) -> None:
    made = make_report().model_copy(update={"training": make_training(hyperparameters=hyperparameters)})
    assert said in render(made, curves=None)


def scored(*texts: tuple[str, str]) -> Report:
    """A report on rows with these answers of base and tuned model; the reference is "right answer here"."""
    examples = [
        Example(line=line, prompt="?" * line, reference="right answer here", metadata={"sort": "ab"[line % 2]})
        for line in range(1, len(texts) + 1)
    ]
    answers: dict[Variant, list[Answer]] = {
        "base": [Answer(text=base, finish_reason="stop") for base, _ in texts],
        "tuned": [Answer(text=tuned, finish_reason="stop") for _, tuned in texts],
    }
    evaluation = evaluate(examples, answers, labels=None, gate=Gate(), seed=0)
    return make_report("x", rows=1).model_copy(update={"evaluation": evaluation})


def test_the_difference_of_base_and_tuned_is_shown_word_by_word_and_stays_text() -> None:
    page = render(scored(("a wrong answer", "a right <b>answer</b>"), ("same", "same")), curves=None)
    assert "a <del>wrong</del><ins>right</ins> <ins>&lt;b&gt;</ins>answer<ins>&lt;/b&gt;</ins>" in page
    assert page.count('<div class="diff">') == 1  # equal answers have none


def test_very_long_answers_have_no_difference_and_do_not_take_long() -> None:
    assert word_diff("a " * 100_000, "b " * 100_000) is None


def test_differences_give_back_both_texts() -> None:
    before, after = "The cat  sat.", "A cat sat on it!"
    changes = word_diff(before, after) or ()
    assert "".join(change.text for change in changes if change.kind != "new") == before
    assert "".join(change.text for change in changes if change.kind != "gone") == after


def test_examples_can_be_filtered_by_slice_and_word_and_ordered_by_their_score() -> None:
    made = scored(("no", "right answer here"), ("right answer here", "no"), ("no", "no"), ("no", "right answer"))
    page = render(made, curves=None)
    tags = Tags(page).found
    articles = [dict(a) for tag, a in tags if tag == "article"]
    states = {article["data-line"]: (article["data-state"], article["data-score"]) for article in articles}
    assert states["1"] == ("better", "1.0") and states["2"] == ("worse", "0.0") and states["3"] == ("same", "0.0")
    options = [dict(a)["value"] for tag, a in tags if tag == "option"]
    names = re.findall(r"<option value=\"\d+\">(.*?)</option>", page)
    assert "sort = a" in names and "short prompts" in names and options[0] == ""
    of_a = str(names.index("sort = a"))
    assert {a["data-line"] for a in articles if of_a in (a["data-slices"] or "").split()} == {"2", "4"}
    orders = {dict(a)["data-order"] for tag, a in tags if tag == "button" and "data-order" in dict(a)}
    assert orders == {"change", "gain", "loss", "best", "worst", "line"}
    assert {dict(a).get("id") for tag, a in tags} >= {"slice", "search", "diffs", "count", "examples"}


def test_prompts_of_the_users_own_are_shown_beside_the_edge_prompts() -> None:
    own = EdgeResult(prompt=own_prompts(["Who are you?"])[0], base=Answer(text="A base."), tuned=Answer(text="Yours."))
    page = render(make_report("x", rows=1).model_copy(update={"own": (own,)}), curves=None)
    assert "<h2>Your prompts</h2>" in page and "Who are you?" in page and "Yours." in page
    assert "<h2>Your prompts</h2>" not in render(make_report("x", rows=1), curves=None)


def test_remedies_stand_below_the_verdict_on_the_training() -> None:
    page = render(make_report("x", rows=1).model_copy(update={"remedies": ("Fewer epochs: so be it.",)}), curves=None)
    assert "<li>Fewer epochs: so be it.</li>" in page


@pytest.mark.parametrize(
    ("steps", "epochs", "words"), [(1, 1.0, "1 step, 1 epoch,"), (1_200, 2.5, "1,200 steps, 2.5 epochs,")]
)
def test_one_step_is_no_plural(steps: int, epochs: float, words: str) -> None:
    report = make_report("x", rows=1)
    training = report.training.model_copy(update={"steps": steps, "epochs": epochs})
    assert words in render(report.model_copy(update={"training": training}), curves=None)
