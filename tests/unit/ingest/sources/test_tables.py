"""Tables as people have them: CSV from help desks and spreadsheets, Parquet, Excel."""

from __future__ import annotations

import io
import json
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
import xlsxwriter

from shared.errors import InputError
from tests.unit.ingest.sources.conftest import Mine

HELP_DESK = (
    "Ticket ID,Created At,Customer Message,Agent Response,Satisfaction Score\r\n"
    '7,2024-03-02 10:00,"And the second\r\none?","It is ""on its way"", too.",5\r\n'
    '7,2024-03-01 09:00,"Hello,\r\nwhere is my parcel?",On its way.,4\r\n'
    "8,2024-03-01 11:00,Too slow!,Sorry.,2\r\n"
    "9,2024-03-01 12:00,Nobody answered,,5\r\n"
)


def test_a_help_desk_export_with_quotes_and_line_breaks_in_cells(run: Mine) -> None:
    found = run("tickets.csv", HELP_DESK, filter="satisfaction_score >= 4", system="Be brief.")
    assert found.turns() == [
        ("system", "Be brief."),
        ("user", "Hello,\r\nwhere is my parcel?"),
        ("assistant", "On its way."),
        ("user", "And the second\r\none?"),
        ("assistant", 'It is "on its way", too.'),
    ]
    assert len(found.rows) == 1
    assert "user from Customer Message, assistant from Agent Response" in found.said
    assert (
        "4 rows became 1 example (rows with the same Ticket ID are one conversation, ordered by Created At)"
        in found.said
    )
    assert "1 do not meet the filter (line 6)" in found.said
    assert "1 have no answer (line 7)" in found.said


def test_a_last_question_that_nobody_answered_is_cut_off_and_counted(run: Mine) -> None:
    found = run("t.csv", "ticket_id,question,answer\n1,One?,Yes.\n2,Two?,No.\n1,Three?,\n")
    assert [found.turns(row)[-1] for row in (0, 1)] == [("assistant", "Yes."), ("assistant", "No.")]
    assert "1 turn after the last answer of 1 example (line 2)" in found.said


def test_an_example_names_the_rows_that_it_was_made_of(run: Mine) -> None:
    found = run("tickets.csv", HELP_DESK, metadata=["Satisfaction Score"])
    assert found.rows[0]["metadata"] == {"source_row": "2, 4", "Satisfaction Score": "4"}


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1252", "Windows-1252"),
        ("utf-8", "UTF-8"),
        ("utf-8-sig", "byte order mark"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16 without"),
    ],
)
def test_the_encoding_is_found_and_said(encoding: str, words: str, run: Mine) -> None:
    table = "Frage;Antwort\nGrüße aus Köln, geht’s?;Schöne Grüße – ja\n" + "Ja?;Ja\n" * 20
    found = run("fragen.csv", table.encode(encoding))
    assert found.turns() == [("user", "Grüße aus Köln, geht’s?"), ("assistant", "Schöne Grüße – ja")]
    assert words in found.said


def test_an_encoding_of_the_settings_counts(run: Mine) -> None:
    found = run("q.csv", "question,answer\nПривет?,Да\n".encode("koi8-r"), encoding="koi8-r")
    assert found.turns()[0] == ("user", "Привет?")
    with pytest.raises(InputError, match="there is no encoding 'kio8'"):
        run("q.csv", "question,answer\na,b\n", encoding="kio8")


def test_a_row_with_bytes_that_are_no_text_is_left_out(run: Mine) -> None:
    found = run("q.csv", "question,answer\nÄ?,Ö\n".encode() + b"broken \xff?,yes\n")
    assert len(found.rows) == 1
    assert "1 hold bytes that are no text in this encoding (line 3)" in found.said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "question;answer\na,1;b\n"),
        ("a.tsv", "question\tanswer\na,1\tb\n"),
        ("a.csv", "sep=|\nquestion|answer\na,1|b\n"),
        ("a.csv", "Export of March\n\nquestion|answer\na,1|b\n"),
    ],
)
def test_what_stands_between_cells_is_found(name: str, text: str, run: Mine) -> None:
    assert run(name, text).turns() == [("user", "a,1"), ("assistant", "b")]


def test_columns_of_the_settings_may_be_several_whatever_their_case(run: Mine) -> None:
    found = run(
        "a.csv",
        "Betreff,Text,Lösung\nDrucker,geht nicht,neu starten\n",
        columns={"user": ["betreff", "text"], "assistant": "LÖSUNG"},
    )
    assert found.turns() == [("user", "Drucker\n\ngeht nicht"), ("assistant", "neu starten")]


def test_a_table_that_nobody_understands_is_refused_with_its_columns_and_what_to_write(run: Mine) -> None:
    with pytest.raises(InputError) as refused:
        run("a.csv", "alpha,beta\n1,2\n")
    assert "the columns alpha, beta" in refused.value.message
    assert "source: {columns: {user: COLUMN, assistant: COLUMN}}" in refused.value.message


def test_a_misspelt_column_is_named_with_the_one_that_was_meant(run: Mine) -> None:
    with pytest.raises(InputError, match=r"no column 'Antwrt'. Did you mean 'Antwort'\?") as refused:
        run("a.csv", "Frage,Antwort\na,b\n", columns={"assistant": "Antwrt"})
    assert refused.value.param == "source.columns.assistant"


def test_a_table_from_which_nothing_comes_says_why(run: Mine) -> None:
    with pytest.raises(InputError, match="2 do not meet the filter"):
        run("a.csv", "question,answer,score\na,b,1\nc,d,2\n", filter="score > 4")


def test_a_quote_that_is_never_closed_is_refused_with_its_line(run: Mine) -> None:
    with pytest.raises(InputError, match="opened in the row of line 3"):
        run("a.csv", 'question,answer\na,b\nc,"d\n' + "e,f\n" * 100)


def test_of_several_system_prompts_the_first_is_kept_and_the_others_are_counted(run: Mine) -> None:
    found = run(
        "chats.csv",
        "conversation_id,sender,body\n"
        "7,system,Be kind.\n7,user,Hi\n7,assistant,Hello\n7,system,Be short.\n7,user,Bye\n7,assistant,Bye\n"
        "8,system,Be kind.\n8,user,Hi\n8,system,Be kind.\n8,assistant,Hello\n",
    )
    assert found.turns(0)[0] == ("system", "Be kind.") and ("system", "Be short.") not in found.turns(0)
    assert "1 turn with another system prompt of 1 example" in found.said


def test_one_message_in_each_row_is_grouped_and_ordered(run: Mine) -> None:
    table = (
        "conversation_id,sender,body,sent_at\n"
        "b,agent,Good day.,02/03/2024 10:01\nb,customer,Hi!,02/03/2024 10:00\n"
        "a,client,Later?,25/03/2024 09:00\na,support,Yes.,26/03/2024 09:00\na,client,First?,01/02/2024 09:00\n"
    )
    found = run("chat.csv", table)
    assert found.turns(0) == [("user", "Hi!"), ("assistant", "Good day.")], "in the order of the file"
    assert found.turns(1) == [("user", "First?\n\nLater?"), ("assistant", "Yes.")], "the day comes before the month"


def test_messages_without_a_conversation_are_refused(run: Mine) -> None:
    with pytest.raises(InputError, match="group_by: COLUMN"):
        run("chat.csv", "role,content\nuser,a\nassistant,b\n")


def test_a_speaker_that_nobody_knows_takes_his_conversation_with_him(run: Mine) -> None:
    table = "thread_id,author,text\n1,customer,a\n1,agent,b\n2,customer,c\n2,Bob,d\n2,agent,e\n"
    found = run("chat.csv", table)
    assert len(found.rows) == 1
    assert "3 have a speaker whose role is not known (line 4, …: 'Bob'; say who that is with source.roles" in found.said
    assert run("chat.csv", table, roles={"bob": "assistant"}).turns(1) == [("user", "c"), ("assistant", "d\n\ne")]


@pytest.mark.parametrize(("answers", "kept"), [("join", "One.\n\nTwo."), ("first", "One."), ("last", "Two.")])
def test_a_ticket_with_several_answers(answers: str, kept: str, run: Mine) -> None:
    table = "ticket_id,question,answer\n1,Why?,One.\n1,Why?,Two.\n"
    assert run("t.csv", table, answers=answers).turns() == [("user", "Why?"), ("assistant", kept)]


def test_labels_are_answers(run: Mine) -> None:
    assert run("l.csv", "text,label\nGreat,good\n").turns() == [("user", "Great"), ("assistant", "good")]


def test_pairs_of_annotators(run: Mine) -> None:
    table = "prompt,response_a,response_b,winner\np,x,y,B\nq,x,y,tie\nr,x,y,response_a\n"
    found = run("pairs.csv", table)
    assert [row["preferred_completion"][0]["content"] for row in found.rows] == ["y", "x"]
    assert found.rows[0]["input"] == {"messages": [{"role": "user", "content": "p"}]}
    assert "1 prefer neither answer (line 3: 'tie' is neither A nor B)" in found.said


# --- spreadsheets and Parquet ---------------------------------------------------------------------------------------


def workbook() -> bytes:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer) as book:
        book.add_worksheet("Cover").write(0, 0, "Support, first quarter")
        sheet = book.add_worksheet("Tickets")
        sheet.merge_range(0, 0, 0, 5, "All tickets")
        sheet.merge_range(2, 1, 2, 2, "Customer")
        sheet.merge_range(2, 3, 2, 4, "Agent")
        for column, name in enumerate(["Ticket ID", "Name", "Message", "Name", "Response", "Score"]):
            sheet.write(3, column, name)
        sheet.merge_range(4, 0, 5, 0, 11)
        sheet.write_row(4, 1, ["Ann", "Hello?", "Bob", "Yes.", 5])
        sheet.write_row(5, 1, ["Ann", "Really?", "Bob", "Really.", 5])
        sheet.write_row(6, 0, [12, "Cem", "Broken", "Bob", "No.", 1])
    return buffer.getvalue()


def test_a_sheet_with_titles_and_merged_headers(run: Mine) -> None:
    found = run("tickets.xlsx", workbook(), filter="score >= 4")
    assert found.turns() == [
        ("user", "Hello?"), ("assistant", "Yes."), ("user", "Really?"), ("assistant", "Really."),
    ]  # fmt: skip
    assert len(found.rows) == 1
    assert found.report.mapping["user"] == ("Customer Message",)
    assert "the sheet 'Tickets'" in found.said
    assert "1 do not meet the filter (row 7)" in found.said


def test_a_sheet_that_there_is_not(run: Mine) -> None:
    with pytest.raises(InputError, match="no sheet 'Tickts'; there are Cover, Tickets"):
        run("tickets.xlsx", workbook(), sheet="Tickts")


def test_parquet_with_types_and_nested_lists(run: Mine, tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "messages": [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], None],
            "made": [datetime(2024, 1, 1), datetime(2024, 1, 2)],
            "score": [4.5, None],
        }
    )
    frame.write_parquet(tmp_path / "source.parquet")
    found = run("a.parquet", (tmp_path / "source.parquet").read_bytes(), filter="score > 4", metadata=["made"])
    assert found.turns() == [("user", "a"), ("assistant", "b")]
    assert "1 do not meet the filter (row 2)" in found.said


@pytest.mark.parametrize("name", ["a.parquet", "a.xlsx"])
def test_a_damaged_file_is_refused_with_words(name: str, run: Mine) -> None:
    start = {"a.parquet": b"PAR1", "a.xlsx": b"PK\x03\x04"}[name]
    with pytest.raises(InputError, match="cannot be read"):
        run(name, start + b"\x00 damaged " * 100)


@pytest.mark.parametrize(
    ("header", "where", "names"),
    [
        ("question,answer,answer", "2 and 3", '"answer" or "answer (2)"'),
        ("Question,note,answer,Question", "1 and 4", '"Question" or "Question (2)"'),
    ],
)
def test_of_two_columns_of_one_name_none_is_taken(header: str, where: str, names: str, run: Mine) -> None:
    row = ",".join("abcd"[: header.count(",") + 1])
    with pytest.raises(InputError) as caught:
        run("t.csv", f"{header}\n{row}\n")
    assert f"Columns {where} are both named" in caught.value.message
    assert names in caught.value.message
    assert caught.value.param == "source.columns"


def test_one_of_two_columns_of_one_name_can_be_chosen(run: Mine) -> None:
    found = run("t.csv", "question,answer,answer\nOne?,Wrong.,Right.\n", columns={"assistant": "answer (2)"})
    assert found.turns()[-1] == ("assistant", "Right.")


def test_columns_of_one_name_that_nobody_reads_may_be_there(run: Mine) -> None:
    assert run("t.csv", "question,answer,note,note,,\nOne?,Yes.,a,b,,\n").turns()[-1] == ("assistant", "Yes.")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('<?xml version="1.0"?>\n<rows><row/></rows>\n', "XML or HTML"),
        ("# Questions\n\nHow are you?\n", "Markdown"),
        ("messages:\n  - role: user\n", "YAML"),
        ("---\nmessages: []\n", "YAML"),
    ],
)
def test_what_is_no_table_is_called_by_its_name(text: str, kind: str, run: Mine) -> None:
    with pytest.raises(InputError) as caught:
        run("t.csv", text)
    assert f"looks like {kind}" in caught.value.message
    assert "JSONL, JSON, CSV" in caught.value.message


TRANSCRIPT = """id,transcript
1,"Customer: Where is my parcel?
It was due on Monday: nothing came.

Agent: It is on its way.
Customer: Thanks.
Agent: You are welcome."
2,"[10:32] Customer: Is it open?
[10:33] Agent (Anna): Until six."
"""


def test_a_column_with_whole_transcripts(run: Mine) -> None:
    found = run("calls.csv", TRANSCRIPT)
    assert found.turns(0) == [
        ("user", "Where is my parcel?\nIt was due on Monday: nothing came."),
        ("assistant", "It is on its way."),
        ("user", "Thanks."),
        ("assistant", "You are welcome."),
    ]
    assert found.turns(1) == [("user", "Is it open?"), ("assistant", "Until six.")]


def test_a_speaker_of_a_transcript_whom_nobody_knows_is_asked_for(run: Mine) -> None:
    rows = TRANSCRIPT + '3,"Customer: Hello?\nZaphod: Hi.\nCustomer: Who is that?\nZaphod: Me.\nAgent: Sorry."\n'
    found = run("calls.csv", rows)
    assert len(found.rows) == 2
    assert "Zaphod" in found.said and "source.roles" in found.said
    assert len(run("calls.csv", rows, roles={"Zaphod": "assistant"}).rows) == 3


def test_a_column_of_plain_texts_is_no_transcript(run: Mine) -> None:
    with pytest.raises(InputError, match="Nothing says which columns"):
        run("notes.csv", "id,transcript\n1,The customer was angry.\n2,Note: call back.\n")


@pytest.mark.parametrize(
    "text",
    [
        "### Human: How are you?### Assistant: Well.\nVery well.",
        "### Human: How are you?\n### Assistant: Well.\nVery well.",
        "**User:** How are you?\n**Assistant:** Well.\nVery well.",
        "10:32 - User: How are you?\n10:33 - Assistant: Well.\nVery well.",
    ],
)
def test_transcripts_in_other_spellings(text: str, run: Mine) -> None:
    found = run("t.jsonl", json.dumps({"text": text}) + "\n")
    assert found.turns() == [("user", "How are you?"), ("assistant", "Well.\nVery well.")]


def test_a_transcript_beside_a_question_and_its_answer_is_no_conversation(run: Mine) -> None:
    found = run(
        "t.csv",
        'transcript,question,answer\n"Customer: Hi.\nAgent: Hello.",Who called?,A customer.\n',
    )
    assert found.turns() == [("user", "Who called?"), ("assistant", "A customer.")]
