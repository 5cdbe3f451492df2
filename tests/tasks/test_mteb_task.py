"""Tasks of the library mteb on given embeddings. The tasks have their data in memory, so no hub is needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, json_of
from word_models import word_model

from suites.records.results_folder import read_records
from suites.schema.config import TaskConfig
from suites.schema.enums import TaskKind
from suites.schema.refusals import Refused
from suites.tasks.scoring import score
from suites.tasks.task import load_task

pytest.importorskip("mteb")

OWN_TASK = """
from datasets import Dataset, DatasetDict
from mteb.abstasks.{module} import {base}
from mteb.abstasks.task_metadata import TaskMetadata


class OwnTask({base}):
    metadata = TaskMetadata(
        name="OwnTask", description="An own task.", reference=None, dataset={{"path": "local", "revision": "1"}},
        type="{type}", category="t2t", modalities={modalities}, eval_splits=["test"], eval_langs=["eng-Latn"],
        main_score="{metric}", date=None, domains=None, task_subtypes=None, license=None, annotations_creators=None,
        dialect=None, sample_creation=None, bibtex_citation=None,
    )

    def load_data(self, **_):
        self.dataset = {dataset}
        self.data_loaded = True
"""
PAIRS = {
    "sentence1": ["a cat", "a dog", "rain", "sun"],
    "sentence2": ["the cat", "stocks", "snow", "a cat"],
    "score": [5, 0, 2, 1],
}
TEXTS = ["a cat", "a dog", "rain", "sun", "the cat", "stocks", "snow"]
LABELED = {"text": [f"text {number}" for number in range(20)], "label": [number % 2 for number in range(20)]}


def own_task(folder: Path, **changes: str) -> TaskConfig:
    """Return the configuration of an own task: STS if `changes` name no other kind."""
    settings = {
        "module": "sts", "base": "AbsTaskSTS", "type": "STS", "metric": "cosine_spearman", "modalities": "['text']",
        "dataset": f"DatasetDict(test=Dataset.from_dict({PAIRS}))", **changes,
    }  # fmt: skip
    (folder / "own.py").write_text(OWN_TASK.format(**settings))
    return TaskConfig("OwnTask", TaskKind.mteb, str(folder / "own.py"))


def test_the_texts_of_a_task_are_those_that_mteb_asks_for(tmp_path: Path) -> None:
    task = load_task(own_task(tmp_path))
    assert task.texts == tuple(TEXTS)
    assert (task.kind, task.output) == ("mteb", "embedding")
    assert (task.targets["texts"], task.targets["metric"]) == (TEXTS, "cosine_spearman")
    assert not set(task.calibration) & set(task.texts)


def test_the_score_is_that_of_mteb_on_the_embeddings_of_each_path(tmp_path: Path) -> None:
    from scipy.stats import spearmanr

    targets = json.loads(json.dumps(load_task(own_task(tmp_path)).targets))
    generator = np.random.default_rng(0)
    path, reference = (generator.normal(size=(len(TEXTS), 6)).astype(np.float32) for _ in range(2))
    figures = score("mteb", targets, path, {"reference": reference}, tmp_path).figures
    assert figures is not None

    def expected(embeddings: np.ndarray) -> float:
        unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        sides = [[TEXTS.index(text) for text in PAIRS[f"sentence{side}"]] for side in (1, 2)]  # type: ignore[arg-type]
        return float(spearmanr((unit[sides[0]] * unit[sides[1]]).sum(1), PAIRS["score"]).statistic)

    assert expected(path) != expected(reference)
    assert figures.value == pytest.approx(expected(path))
    assert figures.reference_value == pytest.approx(expected(reference))
    assert figures.difference == pytest.approx(expected(path) - expected(reference))
    assert (figures.metric, figures.interval, figures.gates) == ("cosine_spearman", None, True)


def test_a_classification_task_trains_on_the_embeddings(tmp_path: Path) -> None:
    data = f"Dataset.from_dict({LABELED})"
    config = own_task(
        tmp_path, module="classification", base="AbsTaskClassification", type="Classification", metric="accuracy",
        dataset=f"DatasetDict(train={data}, test={data})",
    )  # fmt: skip
    task = load_task(config)
    assert sorted(task.texts) == sorted(LABELED["text"])
    labels = np.array([int(str(text).split()[1]) % 2 for text in task.texts])
    right = np.stack([labels, 1 - labels], 1).astype(np.float32)
    figures = score("mteb", task.targets, right, {"reference": np.ones_like(right)}, tmp_path).figures
    assert figures is not None
    assert (figures.value, figures.reference_value) == (1.0, 0.5)


def refusal(config: TaskConfig) -> str:
    with pytest.raises(Refused) as refused:
        load_task(config)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_task_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    assert "task.name= is empty; name a task of mteb" in refusal(TaskConfig("", TaskKind.mteb, ""))
    unknown = refusal(TaskConfig("STSBenchmrk", TaskKind.mteb, ""))
    assert unknown.startswith("mteb has no task.name=STSBenchmrk; did you mean STSBenchmark")
    assert "/nowhere/own.py is not a Python file" in refusal(TaskConfig("Own", TaskKind.mteb, "/nowhere/own.py"))
    assert "is about image; choose a task about text" in refusal(own_task(tmp_path, modalities="['image']"))
    broken = refusal(own_task(tmp_path, dataset="1 / 0"))
    assert broken == (
        "task.name=OwnTask cannot be run (ZeroDivisionError: division by zero); fetch its data set, or name another"
    )
    other = TaskConfig("Other", TaskKind.mteb, str(tmp_path / "own.py"))
    assert "own.py has no class Other; name the class with task.name" in refusal(other)
    (tmp_path / "own.py").write_text("import nothing_like_it")
    assert "own.py cannot be imported (ModuleNotFoundError: No module named 'nothing_like_it')" in refusal(other)


def test_mteb_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mteb", None)
    assert refusal(TaskConfig("STSBenchmark", TaskKind.mteb, "")) == (
        "task=mteb needs the library mteb; pip install mteb (the extra [mteb])"
    )


def test_a_task_is_scored_through_the_pipeline(fast_cli: Cli, tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model")
    config = own_task(tmp_path)
    done = fast_cli("-m", "backend=torch_eager,ort", f"model.path={folder}", "suite=accuracy", "task=mteb",
                    f"task.name={config.name}", f"task.path={config.path}", "batch=[2,3]", "sequence=[8]",
                    "device=cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "OwnTask, cosine_spearman" in done.stdout
    first, second = (json_of(record)["scores"] for record in read_records(tmp_path / "results", "accuracy"))
    assert first["metric"] == second["metric"] == "cosine_spearman"
    assert first["value"] == second["value"] == first["reference_value"]
    assert "low" not in first
