"""Labels, structured output and SQL: what is taken for what, and scores by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.evaluator.domain.answers import Answer
from services.evaluator.domain.examples import Example, parse_row
from services.evaluator.domain.kinds.confusion import OTHER, confusion
from services.evaluator.domain.kinds.labels import find_labels
from services.evaluator.domain.kinds.structure import document_of, inferred
from services.evaluator.domain.pictures.heat_map import heat_map
from services.evaluator.domain.replies import Reply
from services.evaluator.evaluate import evaluate
from services.evaluator.scoring.overlap import overlap
from services.evaluator.scoring.sql import is_statement, sql
from services.evaluator.scoring.structured import checked, structured
from services.evaluator.scoring.task import task_of
from shared.errors import InputError
from shared.events import Gate


def found(*texts: str) -> int | None:
    labels = find_labels([Reply(text=text) for text in texts])
    return len(labels) if labels else None


@pytest.mark.parametrize("count", [21, 50, 120, 200])
def test_many_labels_are_labels_if_the_set_is_closed(count: int) -> None:
    assert found(*[f"document type {index}" for index in range(count)] * 6) == count


def test_rare_labels_among_many_do_not_make_them_text() -> None:
    common = [f"type {index}" for index in range(40)] * 8
    assert found(*common, *[f"rare {index}" for index in range(10)]) == 50  # 3 % of 330 rows


def test_short_free_text_is_not_taken_for_labels_even_if_some_answers_are_frequent() -> None:
    usual = [f"reply {index % 10}" for index in range(400)]
    assert found(*usual, *[f"Hello {index}" for index in range(60)]) is None  # 13 % of the rows are unheard of
    assert found(*[f"label {index}" for index in range(251)] * 6) is None


def test_the_confusion_matrix_counts_other_answers_in_a_column_of_their_own() -> None:
    matrix = confusion(["a", "a", "b", "b"], ["A.", "b", "b", "what?"], ["a", "b", "c"])
    assert (matrix.rows, matrix.columns) == (("a", "b"), ("a", "b", OTHER))
    assert matrix.counts == ((1, 1, 0), (0, 1, 1))
    assert matrix.mistakes() == [("a", "b", 1, 2), ("b", OTHER, 1, 2)]
    assert confusion(["a"], ["c"], ["a", "c"]).columns == ("a", "c", OTHER)


@pytest.mark.parametrize("count", [2, 60, 250])
def test_the_picture_of_the_matrix_holds_every_cell_that_is_not_empty(count: int) -> None:
    labels = [f"label {index}" for index in range(count)]
    drawn = heat_map(confusion(labels, [*labels[1:], labels[0]], labels))
    assert len(drawn.cells) == count and not any(cell.right for cell in drawn.cells)
    assert len(drawn.rows) == count and all(0 < cell.x < drawn.width and cell.y < drawn.height for cell in drawn.cells)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [('{"a": 1}', True), (" [1]\n", True), ("3", False), ('"a"', False), ('```json\n{"a": 1}\n```', False),
     ('{"a": 1} done', False), ('{"a": NaN}', False), ("{'a': 1}", False), ("", False)],
)  # fmt: skip
def test_a_json_document_is_what_a_clients_parser_reads(text: str, is_one: bool) -> None:
    assert (document_of(text) is not None) == is_one


def test_the_inferred_schema_wants_the_keys_that_all_have_and_the_types_that_were_seen() -> None:
    schema = inferred([{"a": 1, "b": "x"}, {"a": 1.5, "c": [{"d": None}]}])
    assert schema["required"] == ["a"]
    assert schema["properties"]["a"]["type"] == ["number"]
    assert schema["properties"]["c"]["items"]["properties"]["d"]["type"] == ["null"]


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        ('{"n": 2.0, "name": "Ann  B", "tags": ["x", "y"]}', (1, 1, 1)),
        ('{"name": "Ann B", "n": "2", "tags": ["x", "y"]}', (1, 0, 3 / 4)),
        ('{"name": "Ann B", "tags": ["x"]}', (1, 0, 2 * 2 / 6)),
        ('{"name": "Ann B", "n": 2, "tags": ["x", "y"]', (0, 0, 0)),
        ("Sure! {}", (0, 0, 0)),
        ('{"n": true, "name": 1, "tags": {}}', (1, 0, 0)),
    ],
)
def test_structured_output_by_hand(answer: str, scores: tuple[float, ...]) -> None:
    reference = {"n": 2, "name": "Ann B", "tags": ["x", "y"]}
    got = structured(json.dumps(reference), answer, inferred([reference]))
    assert tuple(got[name] for name in ("json_valid", "json_schema", "json_fields")) == pytest.approx(scores)


def test_where_no_document_is_wanted_none_is_right() -> None:
    assert set(structured("I cannot tell.", "Sorry.", None).values()) == {1.0}
    assert set(structured("I cannot tell.", "{}", None).values()) == {0.0}


@pytest.mark.parametrize(
    ("schema", "words"),
    [({"type": "strnig"}, "type"), ({"$ref": "http://elsewhere/x.json"}, "nothing is loaded from elsewhere")],
)
def test_a_schema_that_cannot_be_used_is_refused_with_its_field(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=r"evaluation\.json_schema") as refused:
        checked(schema)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("SELECT a FROM t", True), ("select 1", True), ("WITH x AS (SELECT 1 AS a) SELECT a FROM x;", True),
     ("INSERT INTO t VALUES (1)", True), ("SELECT `a` FROM `t`", True), ("SELECT TOP 3 [a b] FROM t", True),
     ("Select a plan", False), ("Update your app", False), ("Select a plan from our list, please!", False),
     ("Create an account.", False), ("SELECT FROM WHERE", False), ("With love", False), ("", False)],
)  # fmt: skip
def test_sql_is_what_can_be_parsed_as_a_statement(text: str, is_one: bool) -> None:
    assert is_statement(text) == is_one


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("SELECT a, b FROM t WHERE x = 1 AND y = 2;", "select A,b\nfrom T where (y = 2) and x=1 -- so", True),
        ("SELECT a FROM t INNER JOIN u ON t.i = u.i", 'SELECT "a" FROM t JOIN u ON t.i = u.i', True),
        ("SELECT count(*) FROM t WHERE a <> 1", "SELECT COUNT(*) FROM t WHERE a != 1", True),
        ("SELECT a FROM t", "SELECT b FROM t", False),
        ("SELECT a FROM t WHERE x = 'Oslo'", "SELECT a FROM t WHERE x = 'oslo'", False),
        ("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a DESC", False),
        ("SELECT a FROM t LEFT JOIN u ON t.i = u.i", "SELECT a FROM t JOIN u ON t.i = u.i", False),
    ],
)
def test_sql_is_compared_by_what_it_says_and_not_by_its_spelling(one: str, other: str, same: bool) -> None:
    assert sql(one, other) == {"sql_valid": 1.0, "sql_match": float(same)}


def test_bleu_and_chrf_lie_between_nothing_and_all() -> None:
    same, far = overlap("The cat sat on the mat.", "The cat sat on the mat."), overlap("The cat", "zzz yy")
    assert same == pytest.approx({"bleu": 1.0, "chrf": 1.0})
    assert far["bleu"] < 0.2 and far["chrf"] == 0
    assert overlap("", "") == {"bleu": 1.0, "chrf": 1.0}
    assert overlap("我爱北京天安门", "我爱北京")["chrf"] > 0.4


def examples(*references: str) -> list[Example]:
    return [Example(line=line, prompt="?", reference=text) for line, text in enumerate(references, 1)]


def test_the_kinds_of_a_task_are_found_and_get_paired_intervals() -> None:
    documents = examples(*['{"city": "Oslo", "n": 1}'] * 8)
    assert task_of(documents, None).structured == 1.0
    answers = {
        "base": [Answer(text="Oslo", finish_reason="stop")] * 8,
        "tuned": [Answer(text='{"n": 1, "city": "Oslo"}', finish_reason="stop")] * 8,
    }
    evaluation = evaluate(documents, answers, labels=None, gate=Gate(), seed=0)  # type: ignore[arg-type]
    assert evaluation.metric == "json_fields" and evaluation.verdict.passed
    assert evaluation.over_base["json_schema"].low == 1.0
    assert task_of(examples(*["SELECT a FROM t"] * 3, "Sorry"), None).sql == 0.75


def test_a_schema_of_the_rows_comes_before_the_inferred_one_and_that_of_the_job_before_both() -> None:
    wanted = {"type": "object", "properties": {"a": {"maximum": 1}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": wanted}}
    row = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": '{"a": 1}'}]}
    example = parse_row(json.dumps({**row, "response_format": form}), 1)
    answers = {variant: [Answer(text='{"a": 2}', finish_reason="stop")] for variant in ("base", "tuned")}

    def matched(schema: dict[str, Any] | None, one: Example) -> float:
        made = evaluate([one], answers, labels=None, gate=Gate(), seed=0, schema=schema)  # type: ignore[arg-type]
        return made.scores["tuned"]["json_schema"]

    assert matched(None, parse_row(json.dumps(row), 1)) == 1.0
    assert matched(None, example) == 0.0
    assert matched({"required": ["a"]}, example) == 1.0
