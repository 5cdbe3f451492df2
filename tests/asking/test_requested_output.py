"""Requests for an output that contradict themselves, the task or the checkpoint are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from word_models import request, word_model

from suites.schema.refusals import Refused

RANDOM = ("backend=torch_eager", "model=bert_base", "weights=random")
CLASSIFIER = (*RANDOM, "+model.architecture.architectures=[BertForSequenceClassification]")
Checkpoint = Callable[[str], Path]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*RANDOM, "pooling=[mean,mean]"), r"pooling=\[mean,mean\] has a pooling twice"),
        ((*RANDOM, "pooling=[median]"), "there is no pooling=median; "),
        ((*RANDOM, "output=hidden", "pooling=[cls]"), "pooling is for output=embedding, not for output=hidden"),
        ((*RANDOM, "output=hidden", "normalize=on"), "normalize is for output=embedding, not for output=hidden"),
        ((*RANDOM, "output=score"), r"output=score with weights=random needs a head for it: .*\[BertForSequence"),
        ((*CLASSIFIER, "output=spans"), r"output=spans with weights=random needs .*\[BertForQuestionAnswering\]"),
        ((*CLASSIFIER, "output=score"), r"output=score with weights=random needs .*num_labels=1"),
        (
            ("backend='null'", "output=embedding"),
            "backend=null runs no model, so it has no output=embedding; leave output out",
        ),
        ((*RANDOM, "suite=layers", "output=embedding"), "suite=layers needs output=hidden; leave output out"),
    ],
)
def test_a_contradiction_is_refused(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=says):
        request(tmp_path, *words)


def test_a_task_names_the_output_that_it_needs(tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model")
    with pytest.raises(Refused, match="output=logits: suite=accuracy with task=sentences needs output=embedding"):
        request(tmp_path, "backend=torch_eager", f"model.path={folder}", "suite=accuracy", "output=logits")


@pytest.mark.parametrize(
    ("pooling", "says"),
    [
        ("{", "1_Pooling/config.json"),
        ('{"pooling_mode": "cls", "pooling_mode_mean_tokens": true}', "contradicts itself"),
        (
            '{"pooling_mode": "cls", "word_embedding_dimension": 768}',
            "word_embedding_dimension 768, but",
        ),
    ],
)
def test_a_damaged_pooling_file_is_refused_before_work_starts(pooling: str, says: str, tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(pooling)
    with pytest.raises(Refused, match=says):
        request(tmp_path, "backend=torch_eager", f"model.path={folder}", "output=embedding")
    made = request(tmp_path, "backend=torch_eager", f"model.path={folder}", "output=embedding", "pooling=[mean]")
    assert json.loads(json.dumps(made.cell["options"]))["pooling"] == ["mean"]


def test_pooling_alone_means_an_embedding(tmp_path: Path) -> None:
    made = request(tmp_path, *RANDOM, "pooling=[cls,mean]", "normalize=off")
    assert made.spec.output.kind == "embedding"
    assert {name: made.cell["options"].get(name) for name in ("output", "pooling", "normalize")} == {
        "output": "embedding",
        "pooling": ["cls", "mean"],
        "normalize": False,
    }
    assert "output" not in request(tmp_path, *RANDOM).cell["options"]
