"""Tasks from tables of the user in each format, and refusals of faulty data: one line with the fix."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from suites.schema.config import TaskConfig
from suites.schema.enums import LabelReading, TaskKind
from suites.schema.refusals import Refused
from suites.tasks.task import load_task

pyarrow = pytest.importorskip("pyarrow")

Rows = Sequence[dict[str, Any]]

NAMES: dict[str, dict[str, Any]] = {
    "pairs": {"text": "sentence1", "pair": "sentence2"},
    "retrieval": {"text": "query", "pair": "positive", "split": "test"},
    "reranking": {"text": "query", "pair": "candidate", "score": "relevance"},
    "regression": {},
    "multi_label": {"label": "labels"},
    "token_classification": {"text": "tokens", "label": "tags"},
}
"""Columns as suites/conf/task/ names them."""

EXAMPLES: dict[str, Rows] = {
    "pairs": [
        {"sentence1": "a cat", "sentence2": "the cat", "score": -3.5},
        {"sentence1": "a cat", "sentence2": "rain", "score": 120},
    ],
    "retrieval": [{"query": "who sat", "positive": "the cat"}, {"query": "who ran", "positive": "a dog"}],
    "reranking": [
        {"query": "who sat", "candidate": "the cat", "relevance": 2},
        {"query": "who sat", "candidate": "a dog", "relevance": 0},
    ],
    "regression": [{"text": "good", "score": 0.5}, {"text": "bad", "score": -1}],
    "multi_label": [{"text": "a cat", "labels": "cat,old"}, {"text": "nothing here", "labels": ""}],
}
TOKENS: Rows = [{"tokens": ["Ada", "ran"], "tags": ["B-PER", "O"]}, {"tokens": ["rain"], "tags": ["O"]}]


def written(folder: Path, suffix: str, rows: Rows) -> Path:
    path = folder / f"data{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == ".parquet":
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif suffix == ".feather":
        from pyarrow import feather

        feather.write_feather(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    return path


def config_of(kind: str, path: Path | str, **changes: Any) -> TaskConfig:
    named = {**NAMES.get(kind, {}), **changes}
    return TaskConfig("mine", TaskKind[kind], str(path), **named)


def refusal(config: TaskConfig, labels: dict[int, str] | None = None) -> str:
    with pytest.raises(Refused) as refused:
        load_task(config, labels)
    reason = str(refused.value)
    assert "\n" not in reason
    assert len(reason) < 500
    return reason


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".feather"])
@pytest.mark.parametrize("kind", list(EXAMPLES))
def test_a_table_of_each_format_gives_the_same_task(kind: str, suffix: str, tmp_path: Path) -> None:
    task = load_task(config_of(kind, written(tmp_path, suffix, EXAMPLES[kind])))
    plain = load_task(config_of(kind, written(tmp_path, ".csv", EXAMPLES[kind])))
    assert task == plain
    assert task.kind == kind
    assert task.calibration


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_tokens_with_tags_are_a_task(suffix: str, tmp_path: Path) -> None:
    task = load_task(config_of("token_classification", written(tmp_path, suffix, TOKENS)), {0: "O", 1: "B-PER"})
    assert task.texts == (["Ada", "ran"], ["rain"])
    assert task.targets == {"tags": [["B-PER", "O"], ["O"]]}
    assert task.labels == ["B-PER", "O"]
    numbers = [{"tokens": ["Ada"], "tags": [1]}]
    task = load_task(config_of("token_classification", written(tmp_path, suffix, numbers)), {0: "O", 1: "B-PER"})
    assert task.targets == {"tags": [["1"]]}


def test_pairs_have_scores_of_any_range_and_texts_once(tmp_path: Path) -> None:
    task = load_task(config_of("pairs", written(tmp_path, ".csv", EXAMPLES["pairs"])))
    assert task.texts == ("a cat", "the cat", "rain")
    assert task.targets == {"pairs": [[0, 1], [0, 2]], "scores": [-3.5, 120]}
    assert task.output == "embedding"


@pytest.mark.parametrize(
    ("kind", "output"),
    [
        ("regression", "logits"),
        ("multi_label", "logits"),
        ("reranking", "score"),
        ("retrieval", "embedding"),
    ],
)
def test_a_kind_names_the_output_that_it_scores(kind: str, output: str, tmp_path: Path) -> None:
    assert load_task(config_of(kind, written(tmp_path, ".csv", EXAMPLES[kind]))).output == output


def test_several_labels_are_a_list_or_a_text(tmp_path: Path) -> None:
    listed = [{"text": "a cat", "labels": ["cat", "old"]}, {"text": "nothing here", "labels": []}]
    as_list = load_task(config_of("multi_label", written(tmp_path, ".jsonl", listed)))
    spaced = [{"text": "a cat", "labels": "cat; old"}, {"text": "nothing here", "labels": ""}]
    as_text = load_task(config_of("multi_label", written(tmp_path, ".csv", spaced), separator=";"))
    assert as_list.targets == as_text.targets == {"labels": [["cat", "old"], []]}
    assert as_list.labels == ["cat", "old"]


def test_the_corpus_is_the_union_of_the_positives(tmp_path: Path) -> None:
    rows = [
        {"query": "q1", "positive": ["a", "b"]},
        {"query": "q2", "positive": ["b"]},
        {"query": "q1", "positive": ["c"]},
    ]
    task = load_task(config_of("retrieval", written(tmp_path, ".jsonl", rows)))
    assert task.texts == ("q1", "q2", "a", "b", "c")
    assert task.targets == {
        "queries": [0, 1],
        "corpus": [2, 3, 4],
        "relevance": [[[0, 1.0], [1, 1.0], [2, 1.0]], [[1, 1.0]]],
        "k": 10,
    }


@pytest.mark.parametrize("positive", ["d2", "the cat", "News the cat"])
def test_positives_are_ids_or_texts_of_the_corpus(positive: str, tmp_path: Path) -> None:
    documents = [{"_id": "d1", "title": "", "text": "a dog"}, {"_id": "d2", "title": "News", "text": "the cat"}]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in documents))
    path = written(tmp_path, ".csv", [{"query": "who sat", "positive": positive}])
    task = load_task(config_of("retrieval", path, corpus=str(corpus), k=3))
    assert task.texts == ("who sat", "a dog", "News the cat")
    assert (task.targets["relevance"], task.targets["k"]) == ([[[1, 1.0]]], 3)


def beir(folder: Path, qrels: str = "q1\td2\t2\nq1\td1\t0\nq2\td1\t1\n") -> Path:
    """Write a folder in BEIR's format."""
    (folder / "qrels").mkdir()
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "a dog"}\n{"_id": "d2", "title": "T", "text": "cat"}\n')
    (folder / "queries.jsonl").write_text("".join(f'{{"_id": "q{n}", "text": "query {n}"}}\n' for n in (1, 2, 3)))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")
    return folder


def test_a_folder_as_those_of_beir_is_a_retrieval_task(tmp_path: Path) -> None:
    task = load_task(config_of("retrieval", beir(tmp_path)))
    assert task.texts == ("query 1", "query 2", "a dog", "T cat")
    assert task.targets["relevance"] == [[[1, 2.0]], [[0, 1.0]]]


def test_candidates_are_rows_or_lists(tmp_path: Path) -> None:
    flat = load_task(config_of("reranking", written(tmp_path, ".csv", EXAMPLES["reranking"])))
    lists = [{"query": "who sat", "candidate": ["the cat", "a dog"], "relevance": [2, 0]}]
    assert load_task(config_of("reranking", written(tmp_path, ".jsonl", lists))) == flat
    assert flat.texts == (["who sat", "the cat"], ["who sat", "a dog"])
    assert flat.targets == {"sizes": [2], "relevance": [2.0, 0.0]}


@pytest.mark.parametrize(
    ("kind", "text", "changes", "says"),
    [
        ("pairs", "sentence1,sentence2,score\na,b,1\n", {"pair": ""}, "task.pair= is empty; give the name of a column"),
        ("pairs", "a,b,score\nx,y,1\n", {}, "no column sentence1 and no column sentence2; its columns are a, b, score; "
         "name yours, e.g. task.text=a task.pair=b"),
        ("pairs", "sentence1,sentence2,score\n", {}, "data.csv has no texts; give a data set with at least one row"),
        ("pairs", "", {}, "data.csv is empty; give a .csv, .tsv, .jsonl or .parquet file"),
        ("pairs", "sentence1,sentence2,score\na,b,high\n", {}, "line 2: score is 'high'; it must be a number"),
        ("pairs", "sentence1,sentence2,score\na,b,nan\n", {}, "line 2: score is 'nan'; it must be a number"),
        ("pairs", "sentence1,sentence2,score\na,b,3\nc,d,3\n", {}, "has the score 3; a rank correlation needs "
         "different scores"),
        ("pairs", "sentence1,sentence2,score\na,b,1_000\n", {}, "line 2: score is '1_000'; it must be a number"),
        ("pairs", "sentence1,sentence2,score\na,,3\n", {}, "line 2: sentence2 is empty"),
        ("regression", "text,score\na,3\nb,3.0\n", {}, "has the score 3; a rank correlation needs different scores"),
        ("regression", "text,label\na,3\n", {}, "name yours, e.g. task.score=label"),
        ("retrieval", "query,positive\nq,\n", {}, "line 2: the query 'q' has no positive; add one to the column"),
        ("retrieval", "query,positive\nq,a\n", {"corpus": "/nowhere/c.csv"}, "task.corpus=/nowhere has no c.csv; give "
         "the path of a .csv, .tsv, .jsonl or .parquet file"),
        ("reranking", "query,candidate,relevance\nq,a,0\nq,b,0\n", {}, "line 2: the query 'q' has no positive; give a "
         "candidate with a relevance above 0"),
        ("reranking", "query,candidate,relevance\nq,a,1\n", {}, "is relevant, so each order is right; add candidates"),
        ("reranking", "query,candidate,relevance\nq,a,yes\n", {}, "line 2: relevance is 'yes'; it must be a number"),
        ("multi_label", "text,labels\na,\n", {}, "has a label; name the column of labels with task.label"),
        ("token_classification", "tokens,tags\na b,O O\n", {}, "line 2: tokens must be a list with an entry for each "
         "token; use .jsonl or .parquet"),
        ("token_classification", "tokens,tags\na,O\n", {"pair": "other"}, "task=mine does not read task.pair=other; "
         "remove it"),
        ("stsb", "x\n", {"pair": "other"}, "task=mine does not read task.pair=other; remove it"),
        ("pairs", "sentence1,sentence2,score\na,b,1\n", {"corpus": "c.csv"}, "does not read task.corpus=c.csv"),
    ],
)  # fmt: skip
def test_faulty_rows_are_refused(kind: str, text: str, changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(text)
    assert says in refusal(config_of(kind, tmp_path / "data.csv", **changes))


@pytest.mark.parametrize(
    ("kind", "row", "says"),
    [
        ("pairs", {"sentence1": ["a", "b"], "sentence2": "c", "score": 1}, "sentence1 is a list; give one text"),
        ("regression", {"text": ["a", "b"], "score": 1}, "text is a list; give one text"),
        ("regression", {"text": "a", "score": None}, "score is null; it must be a number"),
        ("multi_label", {"text": "a", "labels": ["x", None]}, "labels is null; give a text"),
        ("token_classification", {"tokens": ["a", None], "tags": ["O", "O"]}, "tokens has null in entry 2"),
        ("token_classification", {"tokens": ["a"], "tags": [None]}, "tags has null in entry 1; give a text"),
        ("retrieval", {"query": "q", "positive": []}, "the query 'q' has no positive"),
        ("retrieval", {"query": "q", "positive": None}, "the query 'q' has no positive"),
        ("reranking", {"query": "q", "candidate": ["a"], "relevance": [1, 0]}, "candidate has 1 entries and relevance "
         "has 2; give one relevance for each candidate"),
        ("reranking", {"query": "q", "candidate": ["a"], "relevance": 1}, "must both be lists, or a text and a number"),
        ("reranking", {"query": "q", "candidate": [], "relevance": []}, "the query 'q' has no positive"),
        ("token_classification", {"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens have 1 tags; give one"),
        ("token_classification", {"tokens": ["a"], "tags": ["NOUN"]}, "the tags NOUN are not those of entities"),
        ("token_classification", {"words": ["a"], "tags": ["O"]}, "there is no column tokens; its columns are words, "
         "tags; name yours, e.g. task.text=words"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_faulty_lists_are_refused(kind: str, row: dict[str, Any], says: str, suffix: str, tmp_path: Path) -> None:
    reason = refusal(config_of(kind, written(tmp_path, suffix, [row])))
    assert says in reason
    assert reason.startswith(str(tmp_path)) or "NOUN" in reason


def test_binary_values_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, ".parquet", [{"text": b"a", "score": 1}])
    assert "data.parquet, row 1: text is binary; write the column as text" in refusal(config_of("regression", path))


@pytest.mark.parametrize("tag", ["O", "0"])
def test_tags_without_an_entity_are_refused(tag: str, tmp_path: Path) -> None:
    path, names = tmp_path / "data.jsonl", {0: "O", 1: "B-PER"}
    path.write_text(json.dumps({"tokens": ["a", "b"], "tags": [tag, tag]}) + "\n")
    reason = refusal(config_of("token_classification", path), names)
    assert reason == (
        f"no token of {path} has the tag of an entity, so F1 of entities is always 0; name the column of tags with "
        "task.label, or give data with entities"
    )
    path.write_text(json.dumps({"tokens": ["a", "b"], "tags": [tag, "1" if tag == "0" else "B-PER"]}) + "\n")
    assert load_task(config_of("token_classification", path), names).texts == (["a", "b"],)


@pytest.mark.parametrize("kind", ["multi_label", "token_classification"])
def test_labels_that_the_checkpoint_lacks_are_refused_with_their_place(kind: str, tmp_path: Path) -> None:
    label = {"multi_label": ["cat", "fish"], "token_classification": ["B-PER", "fish"]}[kind]
    names = {0: "cat", 1: "old"} if kind == "multi_label" else {0: "O", 1: "B-PER"}
    column, texts = ("labels", {"text": "a b"}) if kind == "multi_label" else ("tags", {"tokens": ["a", "b"]})
    config = config_of(kind, written(tmp_path, ".jsonl", [{**texts, column: label}]))
    reason = refusal(config, names)
    assert "data.jsonl, line 1: the label 'fish' is not one of the checkpoint's labels" in reason
    places = replace(config, labels=LabelReading.places)
    assert "is not a number from 0 to 1" in refusal(places, names)


def test_a_positive_that_is_not_in_the_corpus_is_refused(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("text\na dog\n")
    path = written(tmp_path, ".csv", [{"query": "who sat", "positive": "the cat"}])
    reason = refusal(config_of("retrieval", path, corpus=str(corpus)))
    assert "data.csv, line 2: the positive 'the cat' is neither the text nor the id of a document" in reason
    corpus.write_text("document\na dog\n")
    reason = refusal(config_of("retrieval", path, corpus=str(corpus)))
    assert "corpus.csv: there is no column text; its columns are document; correct their names" in reason
    corpus.write_text("text\n")
    assert "corpus.csv has no rows; give a file" in refusal(config_of("retrieval", path, corpus=str(corpus)))


@pytest.mark.parametrize(
    ("documents", "says"),
    [
        ([{"_id": "d", "text": "a dog"}, {"_id": "d", "text": "a cat"}], "line 2: the id 'd' occurs twice; give each "
         "text its own id"),
        ([{"_id": "d", "text": ["a dog", "ran"]}], "line 1: text is a list; give one text"),
        ([{"_id": "d", "text": "a dog", "title": ["a"]}], "line 1: title is a list; give one text"),
        ([{"_id": "d", "text": "a dog"}, {"_id": "e", "title": "a"}], "line 2: there is no column text; its columns "
         "are _id, title; add it to the row"),
    ],
)  # fmt: skip
def test_a_faulty_corpus_is_refused(documents: Rows, says: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in documents))
    path = written(tmp_path, ".csv", [{"query": "who ran", "positive": "d"}])
    assert f"corpus.jsonl, {says}" in refusal(config_of("retrieval", path, corpus=str(corpus)))


@pytest.mark.parametrize("positives", [0, [0]])
def test_the_number_0_is_an_id(positives: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"_id": n, "text": text}) + "\n" for n, text in enumerate(("a dog", "rain"))))
    path = written(tmp_path, ".jsonl", [{"query": "who ran", "positive": positives}])
    assert load_task(config_of("retrieval", path, corpus=str(corpus))).targets["relevance"] == [[[0, 1.0]]]


def test_the_number_0_is_a_label(tmp_path: Path) -> None:
    rows = [{"text": "a cat", "labels": 0}, {"text": "rain", "labels": 1}, {"text": "sea", "labels": None}]
    for suffix in (".jsonl", ".parquet"):
        task = load_task(config_of("multi_label", written(tmp_path, suffix, rows)), {0: "x", 1: "y"})
        assert task.targets == {"labels": [["0"], ["1"], []]}


def test_a_text_may_be_longer_than_the_default_limit_of_csv(tmp_path: Path) -> None:
    text = "the cat " * 20_000
    path = written(tmp_path, ".csv", [{"text": text, "score": 1}, {"text": "rain", "score": 2}])
    assert load_task(config_of("regression", path)).texts[0] == [text.strip()]


@pytest.mark.parametrize(
    ("qrels", "says"),
    [
        ("q1\td9\t1\n", "test.tsv, line 2: corpus.jsonl has no _id 'd9'; add it, or remove the line"),
        ("q9\td1\t1\n", "test.tsv, line 2: queries.jsonl has no _id 'q9'"),
        ("q1\td1\t0\n", "test.tsv, line 2: the query 'q1' has no positive; give a document with a score above 0"),
        ("", "test.tsv has no lines; name another split with task.split"),
    ],
)
def test_faulty_qrels_are_refused(qrels: str, says: str, tmp_path: Path) -> None:
    assert says in refusal(config_of("retrieval", beir(tmp_path, qrels)))


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    assert f"task.path={tmp_path} has no corpus.jsonl" in refusal(config_of("retrieval", tmp_path))
    folder = beir(tmp_path)
    queries = (folder / "queries.jsonl").read_text()
    (folder / "queries.jsonl").write_text(queries.replace("query 1", " "))
    assert "test.tsv, line 2: the query 'q1' has no text in queries.jsonl; add it" in refusal(
        config_of("retrieval", folder)
    )
    (folder / "queries.jsonl").write_text(queries)
    assert "has no dev.tsv" in refusal(config_of("retrieval", folder, split="dev"))
    assert "is a folder with its own corpus.jsonl; remove task.corpus" in refusal(
        config_of("retrieval", folder, corpus="c.csv")
    )


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_an_unreadable_file_of_columns_is_refused(suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path, suffix, EXAMPLES["pairs"])
    path.write_bytes(path.read_bytes()[:-20])
    reason = refusal(config_of("pairs", path))
    assert f"data{suffix} cannot be read as {suffix} (" in reason
    assert reason.endswith("write the file again")


def test_a_table_of_calibration_texts_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, ".csv", EXAMPLES["pairs"])
    reason = refusal(config_of("pairs", path, calibration=str(path)))
    assert reason.endswith("data.csv is a table, but it must have one text per line; save one column as a .txt file")


def test_a_task_without_data_is_refused() -> None:
    for kind in ("pairs", "reranking", "regression", "multi_label", "token_classification", "retrieval"):
        assert "needs task.path=FILE, or task.hub=" in refusal(config_of(kind, ""))
