"""A cell, its record and its table heading identify one checkpoint and one data set."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import json_of
from word_models import request, word_model, word_tokenizer

from backends.model import identity
from backends.model.checkpoint_files import WEIGHTS
from backends.model.identity import identity_of, weights_digest
from suites.accuracy.tables import accuracy_section
from suites.latency.tables import latency_section
from suites.records.cell import Cell
from suites.records.record import Record
from suites.schema.refusals import Refused
from suites.statistics.validity import way


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = word_model(tmp_path_factory.mktemp("identity") / "model", head="classification")
    modules = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def cell(tmp_path: Path, *overrides: str) -> Cell:
    return Cell(release="", **request(tmp_path, *overrides).cell)


@pytest.mark.parametrize(
    "file",
    [
        "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "merges.txt",
        "added_tokens.json", "spiece.model", "sentencepiece.bpe.model", "modules.json", "1_Pooling/config.json",
        "sentence_bert_config.json",
    ],
)  # fmt: skip
def test_every_file_that_affects_a_figure_changes_the_cell(file: str, folder: Path, tmp_path: Path) -> None:
    before = cell(tmp_path, f"model.path={folder}")
    assert before.id == cell(tmp_path, f"model.path={folder}").id
    with (folder / file).open("a") as stream:
        stream.write(" " if stream.tell() else "{}")
    after = cell(tmp_path, f"model.path={folder}")
    assert before.id != after.id
    assert before.model == after.model == "model"


def test_weights_change_the_cell_and_other_files_do_not(folder: Path, tmp_path: Path) -> None:
    before = cell(tmp_path, f"model.path={folder}")
    (folder / "README.md").write_text("words")
    assert cell(tmp_path, f"model.path={folder}").id == before.id
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(weights)
    assert cell(tmp_path, f"model.path={folder}").id != before.id


def test_the_digest_of_a_large_file_is_cached_until_the_file_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = identity.digest_of
    monkeypatch.setattr(identity, "digest_of", lambda path: read.append(path.name) or real(path))
    monkeypatch.setattr(identity, "LARGE", (folder / WEIGHTS).stat().st_size)
    monkeypatch.setattr(identity, "SETTLED_S", -1.0)
    first = weights_digest(folder, tmp_path / "cache")
    assert weights_digest(folder, tmp_path / "cache") == first
    assert read == [WEIGHTS]
    stamp = (folder / WEIGHTS).stat()
    changed = bytearray((folder / WEIGHTS).read_bytes())
    changed[-1] ^= 1
    (folder / WEIGHTS).write_bytes(changed)
    os.utime(folder / WEIGHTS, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert weights_digest(folder, tmp_path / "cache") != first
    # A file that changed recently is read each time.
    monkeypatch.setattr(identity, "SETTLED_S", 3.0)
    (folder / WEIGHTS).write_bytes(bytes(changed))
    assert weights_digest(folder, tmp_path / "cache") == weights_digest(folder, tmp_path / "cache")
    assert read == [WEIGHTS] * 4


def test_random_weights_are_identified_by_architecture_seed_and_borrowed_tokenizer(tmp_path: Path) -> None:
    word_tokenizer(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "tokenizer_config.json").write_text("{}")
    base = ("model=bert_base", "weights=random", "backend=ort")
    changes = ("model.architecture.num_hidden_layers=3", "seed=1", f"model.tokenizer={tmp_path / 'one'}",
               f"model.tokenizer={tmp_path / 'two'}")  # fmt: skip
    cells = [cell(tmp_path, *base), *(cell(tmp_path, *base, change) for change in changes)]
    assert len({each.id for each in cells}) == 5
    assert {each.model for each in cells} == {"bert_base"}


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (("model=bert_base", "weights=random"), "bert_base"),
        ((), "minilm"),
        (("model=roberta_base",), "roberta_base"),
        (("model.hub=BAAI/bge-small-en-v1.5",), "bge-small-en-v1.5"),
        (("model.hub=bert",), "bert"),
        (("model=bert_base", "model.hub=a/b"), "b"),
        (("model.hub=a/b", "model.name=mine"), "mine"),
        (("model=bert_base", "model.hub=sentence-transformers/all-MiniLM-L6-v2"), "all-MiniLM-L6-v2"),
    ],
)
def test_a_model_has_the_name_of_its_hub_id_unless_one_is_given(
    overrides: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    assert cell(tmp_path, "backend=ort", *overrides).model == name


@pytest.mark.parametrize(
    ("folder_name", "name"),
    [
        ("mine", "mine"),
        ("lr=3e-5", "lr-3e-5"),
        ("model (1)", "model-1"),
        ("modèle é", "modèle-é"),
        ("none", "model-none"),
        ("x" * 200, "x" * 100),
        ("models--BAAI--bge-small/snapshots/0123", "bge-small"),
    ],
)
def test_a_model_has_the_name_of_its_folder_unless_one_is_given(
    folder_name: str, name: str, folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / folder_name
    place.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(place)
    written = f"'model.path=\"{place}\"'"[1:-1]
    assert cell(tmp_path, written).model == name
    assert cell(tmp_path, written, "model.name=mine").model == "mine"


@pytest.mark.parametrize("name", ["a/b", "a b", "x" * 101, "none"])
def test_a_given_name_that_is_not_valid_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"model\.name="):
        request(tmp_path, f"model.name='{name}'")


def test_a_cell_contains_no_folder(folder: Path, tmp_path: Path) -> None:
    assert str(tmp_path) not in json.dumps(cell(tmp_path, f"model.path={folder}").to_json())


def accuracy_cell(tmp_path: Path, folder: Path, rows: str, *more: str) -> Cell:
    (tmp_path / "data.csv").write_text(f"text,label\n{rows}")
    return cell(tmp_path, "suite=accuracy", "task=sequence_classification", f"task.path={tmp_path / 'data.csv'}",
                f"model.path={folder}", *more)  # fmt: skip


def test_texts_and_labels_are_part_of_an_accuracy_cell(folder: Path, tmp_path: Path) -> None:
    first = accuracy_cell(tmp_path, folder, "the cat,LABEL_0\nthe dog,LABEL_1\n")
    assert accuracy_cell(tmp_path, folder, "the cat,LABEL_0\nthe dog,LABEL_1\n").id == first.id
    other_labels = accuracy_cell(tmp_path, folder, "the cat,LABEL_1\nthe dog,LABEL_1\n")
    other_texts = accuracy_cell(tmp_path, folder, "the cat,LABEL_0\nthe mat,LABEL_1\n")
    assert len({first.id, other_labels.id, other_texts.id}) == 3
    assert accuracy_cell(tmp_path, folder, "the cat,LABEL_0\nthe dog,LABEL_1\n", "task.metric=f1").id != first.id


Make = Callable[..., Record]


def test_two_checkpoints_of_one_name_never_share_a_heading(make_record: Make) -> None:
    first, second = (make_record(model="model", model_version=version * 8) for version in ("ab", "cd"))
    text = latency_section([first, second])
    assert "### model (abababab), random (seed 0) weights" in text
    assert "### model (cdcdcdcd), random (seed 0) weights" in text
    assert text.count("**fastest**") == 0
    assert "### model, random (seed 0) weights" in latency_section([first])
    assert way(first) != way(second)


def test_two_data_sets_of_one_task_never_share_a_heading(make_record: Make) -> None:
    base = {"distribution": "full", "tokens": "auto", "task": "mine", "evaluated": "e" * 16}
    first, second = (make_record(suite="accuracy", lengths={**base, "targets": label * 16}) for label in "ab")
    text = accuracy_section([first, second])
    assert "mine (data aaaaaaaa)" in text
    assert "mine (data bbbbbbbb)" in text
    assert "mine\n" in accuracy_section([first])


def test_a_row_says_that_its_weights_came_from_a_package(make_record: Make) -> None:
    record = make_record()
    noted = {**json_of(record)["artifacts"], "weights": {"origin": "package tiny-copy==1.0"}}
    assert "weights from package tiny-copy==1.0" in latency_section([make_record(artifacts=noted)])
    assert "weights from" not in latency_section([record])


def test_the_identity_names_the_same_files_in_any_folder(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert identity_of(folder) == identity_of(tmp_path / "elsewhere")
