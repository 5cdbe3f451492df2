"""Tasks, scores and the accuracy suite; with the real data sets if they are present."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Cli, json_of, table_in

from backends.base import Array, Shape
from backends.inputs.task_batches import batches
from backends.json_codec import from_json, to_json
from suites.records.results_folder import read_records
from suites.schema.config import TaskConfig
from suites.schema.enums import TaskKind
from suites.schema.refusals import Refused
from suites.statistics.validity import past_tolerance, shortfall
from suites.tables.markdown import without_legend
from suites.tasks.bootstrap import verdict
from suites.tasks.scoring import score
from suites.tasks.task import load_task
from suites.tasks.task_scores import TaskScores

DATA = ROOT.parent / "shared" / "data"
STSB_ROW = "g\tf\t2012\t1\t{score}\t{one}\t{two}"
QUICK = ("suite=accuracy", "batch=[3,8]", "sequence=[16,64]")
SHORT = ("suite.seconds=0.02", "suite.warm_up_s=0.05", "suite.min_samples=5")


def stsb(folder: Path, **changes: str) -> TaskConfig:
    rows = [
        ("5.0", "a cat sits", "a cat is sitting"),
        ("0.0", "a cat sits", "stocks fell"),
        ("2.5", "rain", "snow falls"),
    ]
    lines = [STSB_ROW.format(score=s, one=a, two=b) for s, a, b in rows]
    for split in ("test", "dev"):
        (folder / f"sts-{split}.csv").write_text("\n".join([*lines, changes.get(split, lines[0])]) + "\n")
    return TaskConfig("stsb", TaskKind.stsb, str(folder))


def banking(folder: Path, test: str = "text,category\nwhere is it,lost\n") -> TaskConfig:
    rows = [f"card {number},{label}" for label in ("lost", "found") for number in range(10)]
    (folder / "train.csv").write_text("\n".join(["text,category", *rows]) + "\n")
    (folder / "test.csv").write_text(test)
    return TaskConfig("banking77", TaskKind.banking77, str(folder))


def test_texts_are_embedded_once_and_calibration_uses_another_part(tmp_path: Path) -> None:
    task = load_task(stsb(tmp_path, dev=STSB_ROW.format(score="1", one="only here", two="and here")))
    assert task.texts == ("a cat is sitting", "a cat sits", "rain", "snow falls", "stocks fell")
    assert task.targets["pairs"][0] == [1, 0]
    assert task.targets["scores"] == [5.0, 0.0, 2.5, 5.0]
    assert "only here" in task.calibration


def test_experiments_learn_from_eight_texts_per_label(tmp_path: Path) -> None:
    task = load_task(banking(tmp_path))
    labels = task.targets["labels"]
    assert len(task.targets["experiments"]) == 10
    for picked in task.targets["experiments"]:
        assert sorted(labels[index] for index in picked) == ["found"] * 8 + ["lost"] * 8
    assert task.targets["experiments"][0] != task.targets["experiments"][1]
    assert [task.texts[index] for index in task.targets["test"]] == ["where is it"]


@pytest.mark.parametrize(
    ("test", "says"),
    [
        (STSB_ROW.format(score="high", one="a", two="b"), "sts-test.csv, line 4: the score 'high' is not a number"),
        (STSB_ROW.format(score="1", one=" ", two="b"), "sts-test.csv, line 4: sentence1 is empty"),
        (
            "g\tf\t2012\t1\t2.0\talone",
            "line 4: the line has 6 of 7 fields between tabs and no field for sentence2",
        ),
        (STSB_ROW.format(score="nan", one="a", two="b"), "line 4: the score nan is not between 0 and 5"),
        (STSB_ROW.format(score="70", one="a", two="b"), "line 4: the score 70 is not between 0 and 5"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(test: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        load_task(stsb(tmp_path, test=test))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("test", "says"),
    [
        ("text,category\nwhere,stolen\n", "test.csv, line 2: the label 'stolen' is not one of the 2"),
        ("text\nwhere\n", "test.csv: there is no column category; its columns are text; correct their names"),
        ("text,category\n,lost\n", "test.csv, line 2: text is empty"),
    ],
)
def test_a_bad_label_is_refused_with_its_line(test: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        load_task(banking(tmp_path, test))
    assert says in str(refused.value)


@pytest.mark.parametrize("part", ["test", "dev"])
def test_a_part_without_pairs_is_refused(part: str, tmp_path: Path) -> None:
    config = stsb(tmp_path)
    (tmp_path / f"sts-{part}.csv").write_text("")
    with pytest.raises(Refused, match=rf"sts-{part}\.csv must have at least 2 pairs, not 0"):
        load_task(config)


def test_a_file_in_latin_1_is_refused_with_its_line_and_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    config = stsb(tmp_path)
    good = (tmp_path / "sts-test.csv").read_bytes()
    (tmp_path / "sts-test.csv").write_bytes(b"\xef\xbb\xbf" + good)
    assert load_task(config).texts[0] == "a cat is sitting"
    (tmp_path / "sts-test.csv").write_bytes(good + STSB_ROW.format(score=1, one="caf\u00e9", two="b").encode("latin-1"))
    with pytest.raises(Refused) as refused:
        load_task(config)
    assert "sts-test.csv, line 5: it is not UTF-8" in str(refused.value)
    lines = tmp_path / "lines.txt"
    lines.write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(Refused, match="is not UTF-8"):
        load_task(TaskConfig(path=str(lines)))


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        ("text,category\n", "text,category\nwhere,lost\n", "train.csv must have at least 2 labels, not 0"),
        ("text,category\na,lost\nb,lost\n", "text,category\nc,lost\n", "train.csv must have at least 2 labels, not 1"),
        ("text,category\na,lost\nb,found\n", "text,category\n", "test.csv has no texts"),
    ],
)
def test_data_that_no_classifier_can_learn_from_is_refused(train: str, test: str, says: str, tmp_path: Path) -> None:
    config = banking(tmp_path, test)
    (tmp_path / "train.csv").write_text(train)
    with pytest.raises(Refused) as refused:
        load_task(config)
    assert says in str(refused.value)


def test_one_folder_serves_several_tasks(tmp_path: Path) -> None:
    for make in (stsb, banking):
        folder = tmp_path / make(tmp_path).name
        folder.mkdir(exist_ok=True)
        inside = load_task(make(folder))
        for file in tmp_path.glob("*.csv"):
            file.unlink()
        config = make(folder)
        config.path = str(tmp_path)
        assert load_task(config) == inside


def test_the_users_texts_can_calibrate_any_task(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("my text\n")
    for config in (stsb(tmp_path), banking(tmp_path)):
        config.calibration = str(tmp_path / "mine.txt")
        assert load_task(config).calibration == ("my text",)


def fake_hub(monkeypatch: pytest.MonkeyPatch, parts: dict[str, list[dict[str, object]]]) -> list[tuple[object, ...]]:
    """Replace the library `datasets` by one with `parts` by split; return the list of requests that it received."""
    asked: list[tuple[object, ...]] = []

    def load_dataset(hub: str, subset: str | None, split: str) -> list[dict[str, object]]:
        asked.append((hub, subset, split))
        if split not in parts:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(parts)}.')
        return parts[split]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_the_hub_and_files_give_the_same_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pairs = [
        {"sentence1": "a cat", "sentence2": "a dog", "score": 0.5},
        {"sentence1": "x", "sentence2": "y", "score": 1},
    ]
    asked = fake_hub(monkeypatch, {"test": pairs, "validation": pairs})
    task = load_task(TaskConfig("stsb", TaskKind.stsb, "", "some/stsb"))
    assert task.texts == ("a cat", "a dog", "x", "y")
    assert asked == [("some/stsb", None, "test"), ("some/stsb", None, "validation")]
    labelled = [
        {"text": f"{label} {n}", "label": 0, "label_text": label} for label in ("lost", "found") for n in range(9)
    ]
    fake_hub(monkeypatch, {"train": labelled, "test": labelled[:2]})
    assert load_task(TaskConfig("banking77", TaskKind.banking77, "", "some/banking")).targets["labels"][-1] == "lost"
    with pytest.raises(Refused) as refused:
        load_task(TaskConfig("stsb", TaskKind.stsb, "", "some/stsb"))
    assert "some/stsb, validation cannot be fetched" in str(refused.value) or "sentence1" in str(refused.value)
    fake_hub(monkeypatch, {"train": labelled})
    with pytest.raises(Refused, match='test cannot be fetched \\(ValueError: Unknown split "test"'):
        load_task(TaskConfig("banking77", TaskKind.banking77, "", "some/banking"))


def test_a_hub_without_a_connection_is_refused_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(hub: str, subset: str | None, split: str) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(Refused, match=r"cannot be fetched \(ConnectionError\); give a local copy as task\.path="):
        load_task(TaskConfig("stsb", TaskKind.stsb, "", "some/stsb"))


def test_a_task_refuses_random_weights(fast_cli: Cli, tmp_path: Path) -> None:
    stsb(tmp_path)
    run = fast_cli(
        "suite=accuracy", "task=stsb", "backend=torch_eager", "device=cpu", "weights=random", f"task.path={tmp_path}"
    )
    assert run.returncode == 2
    assert "task=stsb needs trained weights; with weights=random use task=sentences" in run.stderr


def test_a_missing_file_and_an_unreachable_hub_are_refused_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"has no sts-test\.csv; give a folder with this file"):
        load_task(TaskConfig("stsb", TaskKind.stsb, str(tmp_path)))
    with pytest.raises(Refused, match=r"local copy as task\.path="):
        load_task(TaskConfig("stsb", TaskKind.stsb, "", "no/such-data"))


def test_batches_contain_every_text_once_in_the_requested_shapes() -> None:
    lengths = [3, 60, 9, 16, 17, 200, 5, 5, 5, 5, 5]
    shapes = [Shape(b, s) for b in (1, 4) for s in (16, 64)]
    made = list(batches(lengths, shapes, seed=0))
    assert sorted(row for rows, _ in made for row in rows) == list(range(11))
    assert {shape for _, shape in made} <= set(shapes)
    for rows, shape in made:
        assert shape.sequence == (16 if max(lengths[row] for row in rows) <= 16 else 64)


def score_outputs(kind: str, task_targets: dict[str, object], outputs: Array, reference: Array) -> dict[str, Any]:
    result: dict[str, Any] = to_json(score(kind, task_targets, outputs, {"reference": reference}, Path()))
    return result


def within(scores: dict[str, Any], tolerance: float) -> TaskScores:
    return from_json(TaskScores, {**scores, "tolerance": tolerance})


def targets(count: int) -> dict[str, object]:
    return {"pairs": [[i, i + count] for i in range(count)], "scores": list(np.linspace(0, 5, count))}


def test_a_worse_path_is_distinguished_from_an_equal_path() -> None:
    generator = np.random.default_rng(0)
    count = 200
    angles = np.linspace(np.pi / 2, 0, count) + generator.normal(0, 0.05, count)
    first = np.stack([np.ones(count), np.zeros(count)], 1)
    reference = np.concatenate([first, np.stack([np.cos(angles), np.sin(angles)], 1)]).astype(np.float32)
    same = score_outputs("stsb", targets(count), reference * 3, reference)
    assert (same["difference"], same["verdict"]) == (0, "no difference found")
    assert same["cosine_min"] == pytest.approx(1)
    assert same["relative_error"] == pytest.approx(2)
    noisy = reference + generator.normal(0, 0.3, reference.shape).astype(np.float32)
    worse = score_outputs("stsb", targets(count), noisy, reference)
    assert worse["high"] < 0
    assert worse["verdict"] == f"worse by {-worse['difference']:.4f}"
    broken = reference.copy()
    broken[3, 1] = np.inf
    assert score_outputs("stsb", targets(count), broken, reference) == {"nonfinite": 1}


def test_changed_predictions_are_counted() -> None:
    labels = ["a"] * 4 + ["b"] * 4 + ["a", "b"]
    points = np.array([[1.0, 0]] * 4 + [[0, 1.0]] * 4 + [[1, 0.1], [0.1, 1]], np.float32)
    task = {"labels": labels, "experiments": [list(range(8))] * 2, "test": [8, 9]}
    moved = points.copy()
    moved[9] = [1, 0.1]
    assert score_outputs("banking77", task, points, points)["changed"] == 0
    scores = score_outputs("banking77", task, moved, points)
    assert (scores["value"], scores["reference_value"], scores["changed"]) == (0.5, 1.0, 0.5)


def test_constant_embeddings_have_no_score() -> None:
    count = 20
    angles = np.linspace(np.pi / 2, 0, count)
    first = np.stack([np.ones(count), np.zeros(count)], 1)
    reference = np.concatenate([first, np.stack([np.cos(angles), np.sin(angles)], 1)]).astype(np.float32)
    scores = score_outputs("stsb", targets(count), np.ones_like(reference), reference)
    assert np.isnan(scores["difference"])
    assert scores["verdict"] == "no figure"
    assert past_tolerance(within(scores, 0.01)) == "spearman is nan"


def test_fidelity_has_a_value_but_no_interval_and_no_verdict() -> None:
    generator = np.random.default_rng(0)
    reference = generator.normal(size=(12, 8)).astype(np.float32)
    scores = score_outputs(
        "fidelity", {}, reference + generator.normal(0, 1, reference.shape).astype(np.float32), reference
    )
    assert scores["difference"] < -0.01
    assert not {"low", "high", "verdict"} & set(scores)
    assert past_tolerance(within(scores, 0.01)) == ""
    assert shortfall(within(scores, 0.01)).startswith("rank agreement falls by")


@pytest.mark.parametrize(
    ("difference", "low", "high", "says"),
    [
        (float("nan"), float("nan"), float("nan"), "no figure"),
        (-0.1, -0.2, 0.1, "no difference found"),
        (-0.1, -0.2, -0.05, "worse by 0.1000"),
        (0.1, 0.05, 0.2, "better by 0.1000"),
    ],
)
def test_a_verdict_follows_from_the_interval(difference: float, low: float, high: float, says: str) -> None:
    assert verdict(difference, low, high) == says


def test_two_suites_in_one_sweep_print_one_table_each(fast_cli: Cli) -> None:
    done = fast_cli("-m", "suite=accuracy,latency", "backend=torch_eager", "batch=[3]", "sequence=[64]", *SHORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("*: row of this run") == 2
    assert "difference: score minus that of PyTorch in FP32" in done.stdout
    assert "3x64: 3 sequences of 64 tokens" in done.stdout


def test_one_table_has_the_scores_of_every_backend(fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli("-m", "backend=torch_eager,torch_packed,ort", *QUICK)
    assert done.returncode == 0, done.stderr
    records = list(read_records(tmp_path / "results", "accuracy"))
    assert len(records) == 3
    for record in records:
        assert json_of(record)["scores"]["metric"] == "rank agreement"
        assert json_of(record)["scores"]["cosine_min"] > 0.99999
        assert json_of(record)["scores"]["value"] > 0.9999
        (check,) = json_of(record)["checks"]
        assert check["cosine"] > 0.99999
        assert (check["nonfinite"], check["problem"]) == (0, "")
    assert "minilm: trained weights, sentences, rank agreement" in done.stdout
    assert table_in(tmp_path / "results", "accuracy").exists()


def test_a_text_longer_than_the_positions_is_cut_and_counted(fast_cli: Cli, tmp_path: Path) -> None:
    stsb(tmp_path, test=STSB_ROW.format(score="1.0", one="a cat sits", two="rain " * 600))
    done = fast_cli(
        "backend=torch_eager",
        "task=stsb",
        f"task.path={tmp_path}",
        "suite=accuracy",
        "batch=[2]",
        "sequence=[16]",
        "--wide",
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 6 texts truncated" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("backend=null", "suite=accuracy"), "runs no model"),
        (("task=stsb", "task.path=/nowhere"), "task.path=/nowhere has no sts-test.csv"),
    ],
)
def test_a_cell_that_cannot_be_scored_is_refused(fast_cli: Cli, arguments: tuple[str, ...], says: str) -> None:
    done = fast_cli(*arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_two_sentences_have_no_rank_agreement(fast_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("a cat sits\na dog runs\na cat sits\n")
    done = fast_cli("backend=torch_eager", f"task.path={tmp_path / 'two.txt'}", "suite=accuracy")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "two.txt has fewer than 3 different sentences, which rank agreement needs; give a file with more lines"
    )


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not at hand")
@pytest.mark.parametrize(("task", "value"), [("stsb", 0.820325), ("banking77", 0.800422)])
@pytest.mark.parametrize("backend", ["torch_eager", "ort"])
def test_published_figures_are_reproduced(task: str, backend: str, value: float, fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli(f"backend={backend}", f"task={task}", f"task.path={DATA / task}", "suite=accuracy", "batch=[16,32]",
               "sequence=[16,32,64,128]")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "accuracy")
    tolerance = 1e-4 if task == "stsb" else 1e-3
    assert json_of(record)["scores"]["value"] == pytest.approx(value, abs=tolerance)
    assert json_of(record)["scores"]["reference_value"] == pytest.approx(value, abs=tolerance)
    assert json_of(record)["scores"]["verdict"] == "no difference found"


def test_a_reused_record_is_judged_by_the_new_tolerance(fast_cli: Cli, tmp_path: Path) -> None:
    """Fidelity also reports the drift of INT8, and does not invalidate its latency."""
    quick = ("backend=ort", "precision=int8", "batch=[2]", "sequence=[16]", "device=cpu", "model=minilm")
    assert fast_cli(*quick, *SHORT).returncode == 0
    assert fast_cli(*quick, "suite=accuracy", "task.tolerance=0.5").returncode == 0
    again = fast_cli(*quick, "suite=accuracy", "task.tolerance=0.000001")
    assert again.returncode == 0
    (record,) = read_records(tmp_path / "results", "accuracy")
    assert json_of(record)["scores"]["tolerance"] == 0.000001
    assert json_of(record)["scores"]["difference"] < -0.000001
    table = without_legend(table_in(tmp_path / "results", "latency").read_text())
    assert "**invalid**" not in table.rpartition("| ort ")[2]
    assert f"({json_of(record)['scores']['difference']:+.4f})" in table
