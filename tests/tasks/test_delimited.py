"""Detection of delimiter and quoting in a text file, and refusals of files that are not tables."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from suites.schema.config import TaskConfig
from suites.schema.enums import TaskKind
from suites.schema.refusals import Refused
from suites.tasks.datasets import from_table, text_columns
from suites.tasks.task import load_task

TEXTS = [
    ("the cat sat", "a dog who ran"),
    ('" the cat sat', 'a dog "who" ran'),
    ("fish , bird and tree", 'they " eat " bread'),
    ('"all of it"', "x; y"),
    ("two\nlines", "a\ttab"),
    ("naïve 好", "it's"),
]
HEADER = ["text", "text2", "label"]


def written(rows: list[tuple[str, str]], delimiter: str, quoting: int = csv.QUOTE_MINIMAL, end: str = "\n") -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerow(HEADER)
    writer.writerows([*row, number % 2] for number, row in enumerate(rows))
    return stream.getvalue()


def read(path: Path, text: str, encoding: str = "utf-8") -> list[tuple[str, str]]:
    path.write_text(text, encoding=encoding, newline="")
    return [(row["text"], row["text2"]) for _, row in text_columns(from_table(path, HEADER), HEADER)]


def refusal(path: Path, text: str, columns: tuple[str, ...] = ("text", "label")) -> str:
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(Refused) as refused:
        list(text_columns(from_table(path, columns), columns))
    reason = str(refused.value)
    assert "\n" not in reason
    assert len(reason) < 400
    return reason


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t"), ("a.TSV", "\t"), ("a.txt", "\t"),
                                                 ("a.csv", ";"), ("a.txt", "|"), ("a.csv", "\t")])  # fmt: skip
def test_quoted_texts_are_read_as_they_were_written(
    name: str, delimiter: str, quoting: int, end: str, tmp_path: Path
) -> None:
    assert read(tmp_path / name, written(TEXTS, delimiter, quoting, end), "utf-8-sig") == TEXTS


@pytest.mark.parametrize("rows", [TEXTS[:1], TEXTS[:2], TEXTS[1:2], TEXTS[2:3], TEXTS[3:4], TEXTS[4:5], TEXTS[::-1]])
def test_quoting_is_detected_for_all_texts(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    assert read(tmp_path / "a.tsv", written(rows, "\t")) == rows


@pytest.mark.parametrize(
    "rows",
    [
        [('" the cat sat', "a dog"), ("x", 'they " eat')],
        [('"the cat', "a dog"), ("x", "y")],
        [('"the cat" he said', "a dog"), ("x", "y")],
        [('"Get out!"', "a dog"), ("the cat", "y")],
        [('"Get out, now!"', "a dog"), ("the cat, the dog", "y")],
        [('"Get out!"', "a dog"), ("the cat", 'who said "that"')],
        [('"a" and "b"', "a dog"), ("x", "y")],
        [("x", '"'), ("y", "z")],
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_in_an_unquoted_tab_separated_file_are_part_of_its_texts(
    rows: list[tuple[str, str]], end: str, tmp_path: Path
) -> None:
    lines = ["\t".join(HEADER), *("\t".join([*row, "1"]) for row in rows)]
    assert read(tmp_path / "a.tsv", end.join(lines) + end) == rows


def test_quoted_commas_of_a_spreadsheet_are_read(tmp_path: Path) -> None:
    text = 'text\ttext2\tlabel\n"a, b"\tc\t1\nd\te\t0\n'
    assert read(tmp_path / "a.txt", text) == [("a, b", "c"), ("d", "e")]


@pytest.mark.parametrize("text", ["text,label\nthe cat,good\n\n,\n\r\n", "text,label\n\nthe cat,good"])
def test_empty_lines_are_skipped(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text, newline="")
    (row,) = from_table(tmp_path / "a.csv", ("text", "label"))
    assert row[1] == {"text": "the cat", "label": "good"}


def test_json_lines_and_a_json_list_are_rows(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": 'a "cat"', "label": 1}, {"text": "ein Hünd", "label": 0}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n", encoding="utf-8-sig")
    (tmp_path / "a.json").write_text(json.dumps(rows))
    for name in ("a.jsonl", "a.json"):
        texts = [row for _, row in text_columns(from_table(tmp_path / name, ("text", "label")), ("text", "label"))]
        assert texts == [{"text": 'a "cat"', "label": "1"}, {"text": "ein Hünd", "label": "0"}]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.tsv", "id\ttext\tlabel\n1\ta\tb\n2\tonly this\n", "line 3: the line has 2 of 3 fields and no field for"),
        ("a.csv", "text,label\na, b,good\n", "line 2: the line has 3 fields, but the header has 2; quote"),
        ("a.csv", 'text,label\n"never closed,good\nb,bad,\nc', "line 2: a quoted field is not closed"),
        ("a.csv", 'text,label\n"one" two, three,good\n', "line 2: "),
        ("a.csv", "sentence;label\na;b\n", "a.csv: there is no column text; its columns are sentence, label; correct"),
        ("a.csv", "text,text,label\na,b,c\n", "there is more than one column text"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', "a.jsonl, line 2: it is not JSON"),
        ("a.jsonl", '{"text": "a"}\n', "line 1: there is no column label"),
        ("a.jsonl", '{"text": null, "label": "a"}\n', "line 1: text is null; give a text, or remove the row"),
        ("a.jsonl", '{"text": ["a"], "label": 1}\n', "line 1: text is a list; give one text, or name another column"),
        ("a.jsonl", '{"text": NaN, "label": "a"}\n', "line 1: text is NaN; give a text"),
        ("a.jsonl", "[1]\n", "entry 1: it is not a JSON object"),
        ("a.jsonl", "[" * 100_000 + "]" * 100_000, "it is not JSON"),
        ("a.parquet", "PAR1", "a.parquet cannot be read as .parquet"),
        ("a.csv.gz", "x", ".gz files are not supported; save the table as .csv, .tsv, .jsonl or .parquet"),
        ("a.csv", " \n", "a.csv is empty; give a .csv, .tsv, .jsonl or .parquet file with one row for each example"),
        ("a.csv", ",".join(f"column{n}" for n in range(10_000)) + "\n1\n", "there is no column text"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_fault(name: str, text: str, says: str, tmp_path: Path) -> None:
    assert says in refusal(tmp_path / name, text)


def test_a_file_in_utf_16_is_recognized(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,b\n", encoding="utf-16")
    with pytest.raises(Refused, match=r"a\.csv is in UTF-16; save the file as UTF-8"):
        list(from_table(tmp_path / "a.csv", ("text", "label")))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label": ""}, "task.label= is empty; give the name of a column"),
        ({"text": ""}, "task.text= is empty; give the name of a column"),
        ({"pair": "text"}, "task.text and task.pair are both text"),
    ],
)
def test_columns_must_be_named(changes: dict[str, str], says: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    config = TaskConfig("mine", TaskKind.sequence_classification, str(tmp_path / "a.csv"), **changes)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=says):
        load_task(config)


@pytest.mark.parametrize("name", ["texts.csv", "texts.TSV", "texts.jsonl", "texts.json", "texts.parquet"])
def test_a_table_is_not_read_as_sentences(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("sentence,label\nthe cat sat,1\n")
    with pytest.raises(Refused) as refused:
        load_task(TaskConfig(path=str(path)))
    reason = str(refused.value)
    assert reason.startswith(f"task.path={str(path)[:80]}")
    assert "is a table, but task=sentences reads one sentence per line" in reason
    for task in ("task=sequence_classification with task.text=COLUMN and task.label=COLUMN", "task=question_answering"):
        assert task in reason
    assert "\n" not in reason


def test_a_text_file_is_read_as_sentences(tmp_path: Path) -> None:
    for name in ("texts.txt", "texts"):
        (tmp_path / name).write_text("sentence, label\nthe cat sat\n")
        assert load_task(TaskConfig(path=str(tmp_path / name))).texts == ("sentence, label", "the cat sat")
