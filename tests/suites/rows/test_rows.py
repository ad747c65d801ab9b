"""Tests that rows are read in the forms that people have, by both doors: `harness new` and `train: file://NAME`."""

from __future__ import annotations

import csv
import io
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.core.errors import SuiteError
from harness.suites import load_suite, parse_examples
from harness.suites.new import Columns, make
from harness.suites.rows import USUAL, WITHOUT_OPTIONS, read_rows
from harness.suites.rows.conversations import MISSING

HI, HO = "Wann öffnen Sie?", "Um 9,5 Uhr."
Turns = list[tuple[str, str]]
PAIR: Turns = [("user", HI), ("assistant", HO)]
BELOW: Turns = [("user", f"{HI}\n\nBis 10 Uhr."), ("assistant", HO)]
SYSTEM: Turns = [("system", "Sei kurz."), *PAIR]
TWO: Turns = [("user", "Hallo"), ("assistant", "Guten Tag"), *PAIR]


def asked(text: str, **keys: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **keys}


def answered(text: str, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **keys}


def lines(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def parquet(*rows: dict[str, Any]) -> bytes:
    made = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), made)
    return made.getvalue()


MESSAGES = [asked(HI), answered(HO)]
SHAREGPT = [{"from": "human", "value": HI}, {"from": "gpt", "value": HO}]
SQUAD = {"context": "Bis 10 Uhr.", "qas": [{"id": "a", "question": HI, "answers": [{"text": HO, "answer_start": 3}]}]}
FORMS: dict[str, tuple[bytes, Turns, str]] = {
    "Alpaca": (lines({"instruction": HI, "input": "Bis 10 Uhr.", "output": HO}), BELOW, ""),
    "Alpaca, an empty input": (lines({"instruction": HI, "input": "", "output": HO}), PAIR, ""),
    "Alpaca as a list": (json.dumps([{"instruction": HI, "input": "", "output": HO}], indent=2).encode(), PAIR, ""),
    "Alpaca of LLaMA-Factory": (
        lines({"instruction": HI, "output": HO, "system": "Sei kurz.", "history": [["Hallo", "Guten Tag"]]}),
        [SYSTEM[0], *TWO],
        "",
    ),
    "Dolly": (
        lines({"instruction": HI, "context": "Bis 10 Uhr.", "response": HO, "category": "closed_qa"}),
        BELOW,
        'the column "category"',
    ),
    "SQuAD of the Hub": (
        lines({"id": 1, "context": "Bis 10 Uhr.", "question": HI, "answers": {"text": [HO, HO], "answer_start": [3]}}),
        BELOW,
        'the column "id"',
    ),
    "SQuAD, the original file": (
        json.dumps({"version": "1.1", "data": [{"title": "Laden", "paragraphs": [SQUAD]}]}).encode(),
        BELOW,
        'the columns "title" and "id"',
    ),
    "ShareGPT": (lines({"id": "x1", "conversations": SHAREGPT}), PAIR, 'the column "id"'),
    "ShareGPT with a system message": (lines({"system": "Sei kurz.", "conversations": SHAREGPT}), SYSTEM, ""),
    "ShareGPT as a list": (json.dumps([{"conversations": SHAREGPT, "tools": ""}]).encode(), PAIR, ""),
    "ChatML": (lines({"messages": MESSAGES}), PAIR, ""),
    "ChatML with further keys": (
        lines({"messages": [asked(HI, name="Tom", weight=1), answered(HO)], "id": 4, "tags": ["a"], "tools": None}),
        PAIR,
        'the columns "id" and "tags"',
    ),
    "ChatML in parts": (lines({"messages": [asked([{"type": "text", "text": HI}]), answered(HO)]}), PAIR, ""),
    "lists of messages": (lines(MESSAGES, MESSAGES), PAIR, ""),
    "TRL's prompt and completion": (lines({"prompt": HI, "completion": HO}), PAIR, ""),
    "TRL's conversational prompt and completion": (
        lines({"prompt": [{"role": "system", "content": "Sei kurz."}, MESSAGES[0]], "completion": [MESSAGES[1]]}),
        SYSTEM,
        "",
    ),
    "TRL's preferences": (lines({"prompt": HI, "chosen": HO, "rejected": "Nie."}), PAIR, 'the column "rejected"'),
    "TRL's preferences without a prompt": (
        lines({"chosen": MESSAGES, "rejected": [asked(HI), answered("Nie.")]}),
        PAIR,
        'the column "rejected"',
    ),
    "preferences that repeat the question": (
        lines({"prompt": HI, "chosen": MESSAGES, "rejected": [asked(HI), answered("Nie.")]}),
        PAIR,
        'the column "rejected"',
    ),
    "CSV with messages as JSON": (
        b'messages\n"' + json.dumps(MESSAGES).replace('"', '""').encode() + b'"\n', PAIR, ""
    ),
    "a list per column": (json.dumps({"question": [HI], "answer": [HO]}).encode(), PAIR, ""),
    "pandas' columns": (json.dumps({"question": {"0": HI}, "answer": {"0": HO}}).encode(), PAIR, ""),
    "rows inside an object": (
        json.dumps({"version": "2", "faq": [{"question": HI, "answer": HO}]}).encode(),
        PAIR,
        'the rows are in faq: "version"',
    ),
    "rows of the Hub's viewer": (
        json.dumps({"rows": [{"row_idx": 0, "row": {"prompt": HI, "completion": HO}}]}).encode(), PAIR, ""
    ),
    "indented JSON objects": (
        b"\n".join(json.dumps({"prompt": HI, "completion": HO}, indent=1).encode() for _ in "ab"), PAIR, ""
    ),
    "Parquet": (parquet({"question": HI, "answer": HO}), PAIR, ""),
    "Parquet with nested messages": (parquet({"id": 1, "messages": MESSAGES}), PAIR, 'the column "id"'),
    "CSV": (f"question,answer\n{HI},\"{HO}\"\n".encode(), PAIR, ""),
    "CSV with quoted cells": (f'"question","answer"\r\n"{HI}","{HO}"\r\n'.encode(), PAIR, ""),
    "CSV of a German Excel": (
        f"Frage;Antwort;Preis\r\n{HI};{HO};4,50\r\n".encode("utf-8-sig"), PAIR, 'the column "Preis"'
    ),
    "CSV with q and a": (f'No.,Q,A\n1,{HI},"{HO}"\n'.encode(), PAIR, 'the column "No."'),
    "CSV with system messages": (
        f'System Prompt,User Prompt,Assistant Response\nSei kurz.,{HI},"{HO}"\n'.encode(), SYSTEM, ""
    ),
    "evaluations of OpenAI": (lines({"input": [asked(HI)], "ideal": HO}), PAIR, ""),
    "a passage beside its questions": (
        json.dumps({"id": 1, "context": "Bis 10 Uhr.", "qas": [{"question": HI, "answer": HO}]}).encode(),
        BELOW,
        'the rows are in qas: "id"',
    ),
    "CSV with a wrong answer": (
        f'Question,Wrong answer,Correct answer\n{HI},Nie.,"{HO}"\n'.encode(), PAIR, 'the column "Wrong answer"'
    ),
    "Japanese": (f'質問,回答\n{HI},"{HO}"\n'.encode(), PAIR, ""),
    "an object from questions to answers": (json.dumps({HI: HO, "Wo?": "Hier."}).encode(), PAIR, "is one object"),
    "Gemini": (
        lines({
            "systemInstruction": {"parts": [{"text": "Sei kurz."}]},
            "contents": [{"role": "user", "parts": [{"text": HI}]}, {"role": "model", "parts": [HO]}],
        }),
        [*SYSTEM[:1], *PAIR],
        "",
    ),
    "preferences of OpenAI": (
        lines({
            "input": {"messages": [asked(HI)], "tools": [], "parallel_tool_calls": False},
            "preferred_output": [answered(HO)],
            "non_preferred_output": [answered("Nie.")],
        }),
        PAIR,
        'the column "non_preferred_output"',
    ),
    "pairs in a conversation": (lines({"conversation": [{"input": HI, "output": HO}]}), PAIR, ""),
    "texts in turn": (lines({"id": "0", "data": [HI, HO]}), PAIR, "1 conversation does not say who speaks"),
    "texts in parts": (
        lines({"messages": [{"role": "user", "content": [{"text": "a"}, {"text": "b"}]}, answered(HO)]}),
        [("user", "a\nb"), *PAIR[1:]],
        "",
    ),
    "CSV with sep": (f"sep=;\r\nquestion;answer\r\n{HI};{HO}\r\n".encode(), PAIR, ""),
    "CSV of Windows-1252": (f"Frage;Antwort\r\n{HI};{HO}\r\n".encode("cp1252"), PAIR, "read as Windows-1252"),
    "text of Excel in UTF-16": (f"question\tanswer\r\n{HI}\t{HO}\r\n".encode("utf-16"), PAIR, ""),
    "UTF-16 without a mark": (f"question\tanswer\r\n{HI}\t{HO}\r\n".encode("utf-16-be"), PAIR, ""),
    "Google Forms": (
        f'"Zeitstempel","Ihre Frage an uns","Die Antwort darauf"\n"30.11.2026 12:00:00","{HI}","{HO}"\n'.encode(),
        PAIR,
        'the column "Zeitstempel"',
    ),
    "Anki": (
        f"#separator:tab\n#html:true\n#tags column:3\n<b>{HI}</b>\tUm&nbsp;9,5 Uhr.\tladen\n".encode(),
        PAIR,
        'the column "tags"',
    ),
    "Anki with names of columns": (
        f"#separator:Comma\n#html:false\n#columns:Vorne,Hinten,Tags\n#tags column:3\n{HI},\"{HO}\",\n".encode(),
        PAIR,
        "column 1 is read as the question",
    ),
    "Quizlet": (f'{HI}\t{HO}\n"Hallo" sagen\tgrüßen\n'.encode(), PAIR, "has no header"),
    "questions and answers without header": (f'{HI},"{HO}"\n'.encode(), PAIR, "has no header"),
}  # fmt: skip


def turns(data: bytes, columns: Columns = USUAL) -> Turns:
    """The messages of the first row."""
    return [(m.role, m.content) for m in read_rows(data, "rows", columns).examples[0].messages]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("columns", [USUAL, WITHOUT_OPTIONS], ids=["new", "train"])
def test_forms(form: str, columns: Columns) -> None:
    """Every form of rows is read by its content, and every column that is left out is named."""
    data, expected, notice = FORMS[form]
    found = read_rows(data, "rows", columns)
    assert not found.mistakes
    assert turns(data, columns) == expected
    assert notice in "\n".join(found.notices)
    assert notice or not found.notices


@pytest.mark.parametrize("form", ["ShareGPT", "CSV of a German Excel", "Parquet with nested messages"])
def test_the_name_of_a_file_does_not_matter(form: str, tmp_path: Path) -> None:
    """`harness new` makes the same valid suite of rows, whatever the name of their file."""
    data, expected, _ = FORMS[form]
    rows = []
    for name in ("rows.jsonl", "rows.csv", "rows.parquet"):
        (tmp_path / name).write_bytes(data)
        made = make(tmp_path / f"from-{name}", tmp_path / name)
        assert load_suite(tmp_path / f"from-{name}").examples == made.suite.examples
        rows.append(made.suite.rows)
    assert rows[0] == rows[1] == rows[2]
    assert [(m.role, m.content) for m in rows[0][0]] == expected


@pytest.mark.parametrize("form", FORMS)
def test_a_suite_may_train_on_any_form(form: str, tmp_path: Path) -> None:
    """`train: file://NAME` reads every form, and its notices are those of the suite."""
    data, expected, notice = FORMS[form]
    (tmp_path / "rows").write_bytes(data)
    case = {"prompt": "a", "assert": [{"type": "contains", "value": "b"}]}
    (tmp_path / "suite.yaml").write_text(json.dumps({"train": "file://rows", "tests": [case]}), encoding="utf-8")
    suite = load_suite(tmp_path)
    assert [(m.role, m.content) for m in suite.rows[0]] == expected
    assert notice in "\n".join(suite.notices)


# --- refused, with a remedy that works ---------------------------------------------------------------------------

TOOLS = {"prompt": HI, "completion": HO, "tools": [{"name": "clock"}]}
CHOICES = {"question": HI, "choices": ["9", "10"], "answer": 0}
REFUSED: dict[str, tuple[bytes, str, str, bytes]] = {
    "text": (
        lines({"text": f"<s>[INST] {HI} [/INST] {HO}"}),
        "question and answer cannot be told apart",
        'Write each row as {"prompt": "the question", "completion": "the answer"}',
        lines({"prompt": HI, "completion": HO}),
    ),
    "tools": (
        lines(TOOLS),
        'has "tools": tool calls are not supported',
        'remove "tools" from the file',
        lines({"prompt": HI, "completion": HO}),
    ),
    "an image": (
        lines({"prompt": HI, "completion": HO}, {"prompt": "Was?", "completion": HO, "image": "a.png"}),
        "images are not supported",
        "Otherwise remove these rows",
        lines({"prompt": HI, "completion": HO}),
    ),
    "choices": (
        lines(CHOICES),
        "choices belong to the question",
        'and the text of the right one as the answer. Then remove "choices".',
        lines({"question": f"{HI} 9 or 10?", "answer": "9"}),
    ),
    "a message of a tool": (
        lines({"messages": MESSAGES}, {"messages": [asked(HI), {"role": "tool", "content": "9"}, answered(HO)]}),
        'message 2 is from "tool"',
        "Remove this row",
        lines({"messages": MESSAGES}),
    ),
    "a call of a tool": (
        lines({"messages": MESSAGES}, {"messages": [asked(HI), answered("", tool_calls=[{"id": 1}])]}),
        'message 2 has "tool_calls"',
        "Remove this row",
        lines({"messages": MESSAGES}),
    ),
    "an answer that is not trained": (
        lines({"messages": [asked(HI), answered(HO, weight=0)]}),
        'excluded from training by "weight"',
        'Remove the key "weight"',
        lines({"messages": [asked(HI), answered(HO)]}),
    ),
    "an answer that is masked": (
        lines({"messages": [asked(HI, train=False, mask=1), answered(HO, mask=1)]}),
        'message 2 is excluded from training by "mask"',
        'Remove the key "mask"',
        lines({"messages": [asked(HI, train=False, mask=1), answered(HO)]}),
    ),
    "an answer that is wrong": (
        lines({"prompt": HI, "completion": "Nie.", "is_correct": False}, {"prompt": HI, "completion": HO}),
        '"is_correct" is false, which marks a bad answer',
        "Otherwise remove these rows",
        lines({"prompt": HI, "completion": HO}),
    ),
    "a deleted answer": (
        lines({"prompt": HI, "completion": "Nie.", "deleted": True}, {"prompt": HI, "completion": HO}),
        '"deleted" is true, which marks a bad answer',
        "Otherwise remove these rows",
        lines({"prompt": HI, "completion": HO}),
    ),
    "several answers with scores": (
        lines({"prompt": HI, "responses": ["Nie.", HO], "scores": [0.1, 0.9]}),
        'has several answers, and "scores" may say which of them is right',
        'Write the right one as the answer, and remove "scores"',
        lines({"prompt": HI, "responses": HO}),
    ),
    "the address of an image": (
        lines({"prompt": HI, "completion": HO, "image_url": "https://x/y.png"}),
        'has "image_url": images are not supported',
        'If the answers are right without it, remove "image_url"',
        lines({"prompt": HI, "completion": HO}),
    ),
    "bytes": (
        parquet({"prompt": HI, "completion": b"\x00"}),
        "completion: holds bytes and no text",
        'Write "completion" as text',
        parquet({"prompt": HI, "completion": HO}),
    ),
    "a bad answer": (
        lines({"prompt": HI, "completion": HO, "label": True}, {"prompt": HI, "completion": "Nie.", "label": False}),
        '"label" is false, which marks a bad answer',
        "Otherwise remove these rows",
        lines({"prompt": HI, "completion": HO, "label": True}),
    ),
    "an answer that is a mapping": (
        lines({"prompt": HI, "completion": {"um": "9"}}),
        "completion: expected text, found a mapping",
        'Write it as text: "completion": "{\\"um\\": \\"9\\"}"',
        b'{"prompt": "a", "completion": "{\\"um\\": \\"9\\"}"}',
    ),
    "an answer with other spellings": (
        lines({"question": HI, "answer": {"value": HO, "aliases": ["9:30"]}}),
        "answer: expected text, found a mapping",
        f'Write it as text: "answer": "{HO}"',
        lines({"question": HI, "answer": HO}),
    ),
    "several answers and the number of one": (
        lines({"question": HI, "answers": ["Nie.", HO], "correct": 1}),
        'has several answers, and "correct" may say which of them is right',
        'Write the right one as the answer, and remove "correct"',
        lines({"question": HI, "answers": HO}),
    ),
    "numbered answers": (
        f'Question,Answer 1,Answer 2,Answer\n{HI},Nie.,"{HO}",2\n'.encode(),
        'has "Answer 1": choices belong to the question',
        'Write the choices into the question, and the text of the right one as the answer. Then remove "Answer 1"',
        f'Question,Answer\n"{HI} Nie oder um 9,5 Uhr?","{HO}"\n'.encode(),
    ),
    "a conversation in one text": (
        lines({"system": "Sei kurz.", "chat": f"USER: {HI} ASSISTANT: {HO}"}),
        "chat: expected a list of messages",
        'Write it as a list: {"chat": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}',
        lines({"system": "Sei kurz.", "chat": MESSAGES}),
    ),
    "mappings instead of texts": (
        lines({"inputs": {"question": HI}, "outputs": {"answer": HO}}),
        "there is no column answer",
        'Write each row with texts alone: {"question": "...", "answer": "..."}',
        lines({"question": HI, "answer": HO}),
    ),
    "a bad answer in a table": (
        b"prompt,completion,label\nWann?,Um 9.,True\nWo?,Nie.,False\n",
        '"label" is false, which marks a bad answer',
        "Otherwise remove these rows",
        b"prompt,completion,label\nWann?,Um 9.,True\n",
    ),
    "an error of a spreadsheet": (
        b"question,answer\nWann?,Um 9.\nWo?,#N/A\n",
        'answer: holds "#N/A", which programs write where a value is missing',
        "Fill it in, or remove the row",
        b"question,answer\nWann?,Um 9.\n",
    ),
    "an image of Anki": (
        b'#separator:tab\n#html:true\nHallo\tGuten Tag\nWas ist das?<img src="a.png">\tEin Herz\n',
        "holds an image",
        "Remove this note",
        b"#separator:tab\n#html:true\nHallo\tGuten Tag\n",
    ),
    "whole conversations as text": (
        lines({"chosen": f"Human: {HI} Assistant: {HO}", "rejected": "Human: Wann? Assistant: Nie."}),
        "chosen: holds question and answer in one text",
        'Write each row as {"prompt": "the question", "completion": "the better answer"}',
        lines({"prompt": HI, "completion": HO}),
    ),
    "one message per row": (
        lines({"role": "prompter", "text": HI, "parent_id": None}),
        "holds one message, and not a question with its answer",
        'Write the messages of each conversation into one row: {"messages": [{"role": "user", "content": "..."}',
        lines({"messages": MESSAGES}),
    ),
    "rows for training and for tests": (
        json.dumps({"train": [{"question": HI, "answer": HO}], "test": [{"question": "Wo?", "answer": HO}]}).encode(),
        'holds rows under "train" and "test"',
        'Write the rows to train into a file of their own, such as "train" as a list',
        json.dumps([{"question": HI, "answer": HO}]).encode(),
    ),
    "a quiz of Google Forms": (
        b"Timestamp,Total score,Wann?,Wann? [Score]\n1,1/1,Um 9.,1/1\n",
        "there is no column question",
        "If these are the questions, write each into a row of its own, with its answer beside it",
        b"question,answer\nWann?,Um 9.\n",
    ),
    "a history that is text": (
        lines({"prompt": HI, "completion": HO, "history": "Hallo. Guten Tag."}),
        "history: expected a list of pairs",
        'remove "history" from the file',
        lines({"prompt": HI, "completion": HO}),
    ),
    "messages that are text": (
        b'question,messages\na,"[{\'role\': \'user\'}]"\n',
        'messages: expected a list of messages, found "[{\'role\'',
        'Save the rows as JSONL instead. In pandas: to_json("rows.jsonl", orient="records", lines=True).',
        lines({"messages": MESSAGES}),
    ),
    "answers that are text": (
        b"question,answers\nWann?,\"{'text': array(['Um 9.'], dtype=object), 'answer_start': array([8])}\"\n",
        "answers: holds a list or mapping as text: \"{'text'",
        'Save the rows as JSONL instead. In pandas: to_json("rows.jsonl", orient="records", lines=True).',
        lines({"question": HI, "answers": {"text": [HO], "answer_start": [3]}}),
    ),
    "a context beside a conversation": (
        lines({"messages": MESSAGES, "context": "Bis 10 Uhr."}),
        'has "context": it is not known to which message of the conversation this belongs',
        'remove "context" from the file',
        lines({"messages": MESSAGES}),
    ),
    "two system messages": (
        lines({"system": "Sei kurz.", "messages": [{"role": "system", "content": "Sei nett."}, *MESSAGES]}),
        "has two different system messages",
        "Remove one of them",
        lines({"system": "Sei kurz.", "messages": MESSAGES}),
    ),
    "a conversation that ends with a question": (
        lines({"messages": MESSAGES}, {"messages": [*MESSAGES, asked("Und?")]}),
        "the last message is not from assistant",
        "Remove this row",
        lines({"messages": MESSAGES}),
    ),
    "an unusual delimiter": (
        f"question|answer\n{HI}|{HO}\n".encode(),
        "there is no column answer",
        "Write each question and its answer on one line, with a tab between",
        f"question\tanswer\n{HI}\t{HO}\n".encode(),
    ),
    "questions as columns": (
        b"Zeitstempel,Wann?,Wo?\n1,Um 9.,Hier.\n",
        "there is no column question",
        "If these are the questions, write each into a row of its own, with its answer beside it",
        b"question,answer\nWann?,Um 9.\nWo?,Hier.\n",
    ),
    "questions about questions as columns": (
        b"Zeitstempel,Was fragt man?,Was sagt man?\n1,Wann?,Um 9.\n",
        "there is no column question",
        'Otherwise rename the one with the questions to "question"',
        b"Zeitstempel,question,answer\n1,Wann?,Um 9.\n",
    ),
    "other names of columns": (
        b"Thema,Text,Notiz\na,b,c\n",
        "there is no column question",
        'Rename the one with the questions to "question"',
        b"question,answer,Notiz\na,b,c\n",
    ),
    "a cloze note of Anki": (
        b"#separator:tab\n#html:false\nHallo\tGuten Tag\n{{c1::Rom}} liegt in Italien.\t\n",
        "is a cloze note of Anki",
        "Remove this note",
        b"#separator:tab\n#html:false\nHallo\tGuten Tag\n",
    ),
    "a comma in a cell": (
        b"question,answer\nWann?,Um 9, nicht um 10\n",
        "has 3 cells under 2 columns",
        "Put quotation marks around cells that hold commas",
        b'question,answer\nWann?,"Um 9, nicht um 10"\n',
    ),
    "JSON in another encoding": (
        json.dumps({"prompt": HI, "completion": HO}, ensure_ascii=False).encode("cp1252"),
        "is not UTF-8 text",
        "Save the file as UTF-8",
        lines({"prompt": HI, "completion": HO}),
    ),
    "NaN": (
        b'{"prompt": "a", "completion": "b", "score": NaN}',
        "NaN is not a JSON number",
        "Write null",
        b'{"prompt": "a", "completion": "b", "score": null}',
    ),
}  # fmt: skip
"""Rows that are refused: the message, the remedy, and the rows when that remedy was followed."""


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_refused_is_read_after_its_remedy(form: str) -> None:
    """What cannot be read is refused with a remedy. When it is followed to the letter, the rows are read."""
    data, message, remedy, mended = REFUSED[form]
    with pytest.raises(SuiteError) as caught:
        parse_examples(data, "rows")
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert parse_examples(mended, "rows")


OPTIONS: dict[str, tuple[bytes, Columns, str]] = {
    "tools": (lines(TOOLS), Columns(leave_out=("tools",)), "--leave-out tools"),
    "a column with a space": (
        f"Die Sache;Das Wort\n{HI};{HO}\n".encode(),
        Columns("Die Sache", "Das Wort"),
        "--prompt-column 'Die Sache' --answer-column 'Das Wort'",
    ),
    "no header": (f"{HO};{HI}\n".encode(), Columns("2", "1"), "--prompt-column 1 --answer-column 2"),
    "three columns": (
        f'Nr,Sache,Wort\n1,{HI},"{HO}"\n'.encode(),
        Columns("Sache", "Wort"),
        "Name the one with the questions with --prompt-column",
    ),
}


@pytest.mark.parametrize("form", OPTIONS)
def test_options_that_a_remedy_names(form: str) -> None:
    """If the remedy of `harness new` names options, the rows are read with these options."""
    data, columns, remedy = OPTIONS[form]
    refused = read_rows_or_error(data, USUAL)
    assert remedy in refused
    assert turns(data, columns)[-2:] == PAIR


def read_rows_or_error(data: bytes, columns: Columns) -> str:
    try:
        (mistake,) = read_rows(data, "rows", columns).mistakes
    except SuiteError as problem:
        return problem.remedy
    return mistake.remedy


def test_an_unknown_column_to_leave_out_is_a_mistake() -> None:
    """If `--leave-out` names a column that does not exist, the error lists the columns."""
    (mistake,) = read_rows(lines({"prompt": HI, "completion": HO}), "rows", Columns(leave_out=("tool",))).mistakes
    assert (mistake.message, mistake.remedy) == (
        'there is no column "tool"', 'The columns are: "prompt" and "completion". Name one with --leave-out.'
    )  # fmt: skip


def test_a_table_of_a_program_can_be_saved_as_its_remedy_says() -> None:
    """If a cell holds a mapping as text, pandas writes JSONL with the command of the remedy, and that is read."""
    frame = pd.DataFrame({"question": [HI], "answers": [{"text": [HO], "answer_start": [3]}]})
    with pytest.raises(SuiteError) as caught:
        parse_examples(frame.to_csv(index=False).encode(), "rows.csv")
    assert 'to_json("rows.jsonl", orient="records", lines=True)' in caught.value.remedy
    assert turns(frame.to_json(orient="records", lines=True).encode()) == PAIR


def test_a_context_may_be_left_out() -> None:
    """A context that the user leaves out is not put below the question, and is named."""
    found = read_rows(FORMS["Dolly"][0], "rows", Columns(leave_out=("context",)))
    assert found.examples[0].messages[0].content == HI
    assert found.notices == ('Left out of rows: the columns "context" and "category".',)


@pytest.mark.parametrize(
    ("answers", "notice"),
    [
        (["Um 9.", "Um neun."], "Only the first of several answers is trained: 1 row."),
        ([], "Left out, because their list of questions or answers is empty: 1 row."),
    ],
)
def test_rows_with_several_answers_or_none(answers: list[str], notice: str) -> None:
    """Of several answers the first is trained; a row that says that there is none (SQuAD 2) is left out."""
    row = {"question": "Wann?", "answers": {"text": answers, "answer_start": []}}
    found = read_rows(lines({"question": HI, "answers": {"text": [HO]}}, row), "rows")
    assert notice in found.notices
    assert [e.messages[1].content for e in found.examples] == [HO, *answers[:1]]


# --- any file ----------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["question", "answer", "prompt", "completion", "messages", "context", "system", "history",
                         "text", "tools", "role", "content", "from", "value", "label", "chosen", "data"])  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["user", "human", "assistant"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
@example(b"PK\x03\x04")
@example(b"\xff\xfe")
@example(b"#separator:\n#columns:a\n")
@example(b"sep=\r\n")
@example(b'sep="\na"b\n')
@example(b'#separator:"\n#columns:a"b\na"b\n')
def test_any_bytes_are_rows_or_an_error(data: bytes) -> None:
    """Any content of a file is read as rows or raises a `SuiteError`."""
    if not data.startswith(b"PAR1"):
        for columns in (USUAL, WITHOUT_OPTIONS, Columns("1", "2")):
            with suppress(SuiteError):
                read_rows(data, "rows", columns)


@settings(deadline=None)
@given(
    st.text(alphabet='ab?,;\t"\n\r#:|=<>&{}[]1 ', max_size=120),
    st.sampled_from(["", "sep=;\n", "#html:true\n", "question,answer\n"]),
)
def test_any_table_is_rows_or_an_error(text: str, head: str) -> None:
    """Any table, with or without the lines that Excel and Anki write before it, is read or raises a `SuiteError`."""
    with suppress(SuiteError):
        read_rows((head + text).encode(), "rows")


@settings(deadline=None)
@given(st.lists(VALUES, max_size=3), st.booleans())
def test_any_json_is_rows_or_an_error(values: list[Any], is_list: bool) -> None:
    """Any JSON, in lines or as a list, is read or raises a `SuiteError`, and each mistake has a remedy."""
    data = json.dumps(values).encode() if is_list else lines(*values)
    with suppress(SuiteError):
        assert all(mistake.remedy for mistake in read_rows(data, "rows").mistakes)


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20).filter(
    lambda t: t.strip() == t and t not in MISSING
)


@settings(deadline=None)
@given(st.lists(st.tuples(CELLS.filter(bool), CELLS.filter(bool)), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_a_csv_file_is_read_as_it_was_written(pairs: list[tuple[str, str]], delimiter: str) -> None:
    """Questions and answers that Python's csv module writes are read unchanged, whatever the delimiter."""
    made = io.StringIO(newline="")
    csv.writer(made, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("question", "answer"), *pairs])
    found = read_rows(made.getvalue().encode(), "rows")
    assert [(e.messages[0].content, e.messages[1].content) for e in found.examples] == pairs


HOSTILE = {
    "10 million brackets": (b"[" + b"[]," * 5_000_000, "holds more than 5,000,000 lists and objects"),
    "300,000 rows": (b"a,b\n" * 300_000, "the file has more than 200,000 rows"),
    "300,000 rows of JSON": (b"{}\n" * 300_000, "the file has more than 200,000 rows"),
    "a line of 2 million cells": (b"," * 2_000_000, "is longer than 1,048,576 characters"),
    "100,000 columns": (b"question,answer" + b"".join(b",c%d" % n for n in range(100_000)), "has 100,002 columns"),
    "an object with 100,000 keys": (json.dumps({f"k{n}": "x" for n in range(100_000)}).encode(), "has 100,000 columns"),
    "a passage with 60,000 questions": (
        json.dumps(
            {"data": [{"paragraphs": [{"context": "x" * 99_999, "qas": [{"question": "a", "answer": "b"}] * 60_000}]}]}
        ).encode(),
        "the rows up to here have more than",
    ),
    "a conversation of 5 million characters": (
        json.dumps({"messages": [asked("a" * 2_500_000), answered("b" * 2_500_000)]}).encode(),
        "has more than 4,194,304 characters",
    ),
    "50,000 wordings of a long question": (
        json.dumps(
            {"patterns": [str(n) for n in range(50_000)], "responses": ["b"], "context": "x" * 100_000}
        ).encode(),
        "has 50,000 wordings of a long question",
    ),
    "sounds without end": (b"#separator:tab\n#html:true\n" + b"[sound:" * 10_000 + b"\tb\n", ""),
    "tags without end": (b"#separator:tab\n#html:true\n" + b"<a <a\t" + b"<b" * 50_000 + b"\n", ""),
    "a character of 50,000 digits": (b"#separator:tab\n#html:true\n&#" + b"9" * 50_000 + b";\tb\n", ""),
    "directives without end": (b"#deck:x\n" * 1_000_000, "the file has more than 200,000 rows"),
    "quotes without end": (b'question,answer\n"' + b'""' * 1_000_000, "is longer than 1,048,576 characters"),
    "Windows-1252 without white space": (b"a" * 100_000 + b"\xfc", "there is no column question"),
    "a depth of 100,000": (b'{"a":' * 100_000, "is nested too deeply"),
}  # fmt: skip
"""Files that are made to fill memory or time, and how they are refused; an empty text if they are read."""


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_files_end_soon(attack: str) -> None:
    """A file that is made to fill memory or time is read or refused within seconds."""
    data, refused = HOSTILE[attack]
    began = time.process_time()
    try:
        message = "".join(mistake.message for mistake in read_rows(data, "rows").mistakes)
    except SuiteError as problem:
        message = problem.message
    assert refused in message
    assert bool(refused) == bool(message)
    assert time.process_time() - began < 20


def test_choices_are_refused_with_a_remedy_that_works(tmp_path: Path) -> None:
    """Rows with choices in columns of their own are refused; with the options that the remedy names, they are read."""
    row = {"question": "Which? (A) Teal (B) Red", "A": "Teal", "B": "Red", "answer": "Teal"}
    (mistake,) = read_rows(lines(row), "rows").mistakes
    assert "--leave-out A --leave-out B" in mistake.remedy
    assert read_rows(lines(row), "rows", Columns(leave_out=("A", "B"))).examples
    (told,) = read_rows(lines(row), "rows", WITHOUT_OPTIONS).mistakes
    assert 'remove "A" and "B"' in told.remedy


@pytest.mark.parametrize("context", ["Bis 10 Uhr.", ["Bis 10 Uhr."]])
def test_contexts_are_texts_or_lists_of_texts(context: object) -> None:
    """A list of passages is put below the question, as a single passage is."""
    (found,) = read_rows(lines({"question": HI, "passages": context, "answer": HO}), "rows").examples
    assert [(message.role, message.content) for message in found.messages] == BELOW


def test_an_instruction_is_above_the_question() -> None:
    """An instruction beside a question is asked first, then the question."""
    (found,) = read_rows(lines({"question": "Bis 10 Uhr.", "instruction": HI, "answer": HO}), "rows").examples
    assert [(message.role, message.content) for message in found.messages] == BELOW


def test_several_questions_with_several_answers_are_refused() -> None:
    """A row with lists of questions and of answers is refused, unless these are patterns and responses."""
    rows = lines({"questions": ["a", "b"], "answers": ["c", "d"]}, {"questions": ["e", "f"], "answers": ["g"]})
    found = read_rows(rows, "rows")
    assert "not known which belong together" in found.mistakes[0].message
    assert [example.messages[0].content for example in found.examples] == ["e", "f"]
    known = read_rows(lines({"patterns": ["a", "b"], "responses": ["c", "d"]}, {}), "rows")
    assert [example.messages[1].content for example in known.examples] == ["c", "c"]
