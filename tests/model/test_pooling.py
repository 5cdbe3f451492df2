"""Embeddings of a sentence encoder use the pooling of the checkpoint's own files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from word_models import WORDS, request, word_model

from backends.base import SourceForm, Unavailable, Unsupported
from backends.model.pooling import Pooling, pooling_of
from backends.model_output import Output
from suites.accuracy.suite import AccuracyQuestion
from suites.accuracy.tables import accuracy_section
from suites.records.record import Record
from suites.running.stages import export_job
from suites.worker import export as export_stage

OFF = {
    "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}  # fmt: skip


def sentence_encoder(folder: Path, pooling: Any, *modules: str) -> Path:
    """Write the files of sentence-transformers: the list of modules with these types, and the pooling configuration."""
    folder.mkdir(exist_ok=True)
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    listed = [
        {"idx": place, "name": str(place), "path": paths.get(kind, f"{place}_{kind}"),
         "type": f"sentence_transformers.models.{kind}"}
        for place, kind in enumerate(modules)
    ]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


NORMALIZED = ("Transformer", "Pooling", "Normalize")


@pytest.mark.parametrize(
    ("pooling", "modules", "modes", "normalized"),
    [
        ({**OFF, "pooling_mode_cls_token": True}, NORMALIZED, ("cls",), True),
        ({**OFF, "pooling_mode_mean_tokens": True}, NORMALIZED, ("mean",), True),
        ({**OFF, "pooling_mode_max_tokens": True}, NORMALIZED[:2], ("max",), False),
        ({**OFF, "pooling_mode_mean_sqrt_len_tokens": True}, NORMALIZED[:2], ("mean_sqrt_len_tokens",), False),
        ({**OFF, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, NORMALIZED, ("cls", "max"), True),
        ({**OFF, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, NORMALIZED, ("max", "mean"), True),
        ({"pooling_mode": "cls"}, NORMALIZED[:2], ("cls",), False),
        ({"pooling_mode": ["mean"]}, NORMALIZED, ("mean",), True),
        ({"pooling_mode": "lasttoken"}, NORMALIZED, ("lasttoken",), True),
    ],
)
def test_pooling_is_read_from_the_files(
    pooling: Any, modules: tuple[str, ...], modes: tuple[str, ...], normalized: bool, tmp_path: Path
) -> None:
    read = pooling_of(sentence_encoder(tmp_path / "model", pooling, *modules))
    assert read == Pooling(modes, normalized, "1_Pooling/config.json")
    assert read.note == f"{'+'.join(modes)} pooling (1_Pooling/config.json)"


def test_a_pooling_file_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    both = {**OFF, "pooling_mode": "cls", "pooling_mode_mean_tokens": True}
    with pytest.raises(Unavailable, match=r"1_Pooling/config\.json contradicts itself: pooling_mode is cls, but"):
        pooling_of(sentence_encoder(tmp_path / "model", both, *NORMALIZED))


@pytest.mark.parametrize(
    "modules", [("Pooling", "Transformer"), ("Transformer", "Normalize", "Pooling"), (*NORMALIZED, "Pooling")]
)
def test_modules_in_another_order_are_refused(modules: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="must have one Pooling module after the Transformer"):
        pooling_of(sentence_encoder(tmp_path / "model", {"pooling_mode": "cls"}, *modules))


def test_pooling_without_files_is_the_normalized_mean(tmp_path: Path) -> None:
    assert pooling_of(tmp_path) == Pooling(("mean",), True, "default")
    assert pooling_of(tmp_path).note == "mean pooling"


@pytest.mark.parametrize(
    ("pooling", "modules", "says"),
    [
        (OFF, NORMALIZED, "1_Pooling/config.json selects no pooling; select one or more of mean, cls, max"),
        ({"pooling_mode": "attention"}, NORMALIZED, "has the pooling attention, which is not supported; select one"),
        ({"pooling_mode": "cls"}, ("Transformer", "Pooling", "LSTM"), "the module 'LSTM' after the encoder"),
    ],
)
def test_other_pooling_is_unsupported(pooling: Any, modules: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=says):
        pooling_of(sentence_encoder(tmp_path / "model", pooling, *modules))


@pytest.mark.parametrize("prompts", [{"query": "question: "}, None, {}])
def test_a_prompt_before_each_text_is_unsupported(prompts: Any, tmp_path: Path) -> None:
    file = tmp_path / "config_sentence_transformers.json"
    file.write_text(json.dumps({"prompts": prompts, "default_prompt_name": "query"}))
    with pytest.raises(Unsupported, match="puts the prompt 'query' before each text"):
        pooling_of(tmp_path)
    for harmless in ({"prompts": prompts, "default_prompt_name": None}, {"prompts": {"": ""}}):
        file.write_text(json.dumps(harmless))
        assert pooling_of(tmp_path) == Pooling()


@pytest.mark.parametrize("longest", ["16", 0, True])
def test_an_invalid_length_is_refused(longest: Any, tmp_path: Path) -> None:
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest}))
    with pytest.raises(Unavailable, match="has max_seq_length"):
        pooling_of(tmp_path)


@pytest.mark.parametrize(
    ("pooling", "says"),
    [
        ({"pooling_mode_mean_tokens": "true"}, 'has pooling_mode_mean_tokens "true"; it must be true or false'),
        ({"pooling_mode_cls_token": 0, "pooling_mode_mean_tokens": 1}, "has pooling_mode_cls_token 0; it must be true"),
        ({"word_embedding_dimension": 65, "pooling_mode": "cls"}, "has word_embedding_dimension 65, but the hidden "
         "size in config.json is 64; give the files of one checkpoint"),
        ({"embedding_dimension": 65, "pooling_mode": "cls"}, "has embedding_dimension 65, but the hidden size"),
    ],
)  # fmt: skip
def test_invalid_settings_of_a_pooling_are_refused(pooling: Any, says: str, tmp_path: Path) -> None:
    folder = sentence_encoder(tmp_path / "model", pooling, *NORMALIZED)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 64}))
    with pytest.raises(Unavailable, match=re.escape(f"1_Pooling/config.json {says}")):
        pooling_of(folder)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", "[]"])
def test_modules_that_are_not_a_list_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(Unavailable, match=r"modules\.json"):
        pooling_of(tmp_path)


@pytest.mark.parametrize("path", ["../other", "/etc", "nowhere"])
def test_a_pooling_folder_must_be_inside_the_checkpoint(path: str, tmp_path: Path) -> None:
    module = {"path": path, "type": "sentence_transformers.models.Pooling"}
    (tmp_path / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(Unavailable, match=r"modules\.json lists the folder"):
        pooling_of(tmp_path)


def pairs(folder: Path) -> Path:
    """Write files in the format of STS-B with pairs of words."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for part in ("test", "dev"):
        texts = [[" ".join(generator.choice(WORDS, 5)) for _ in range(2)] for _ in range(8)]
        rows = [["g", "f", "2012", str(n), f"{n % 5}.0", *two] for n, two in enumerate(texts)]
        (folder / f"sts-{part}.csv").write_text("\n".join("\t".join(row) for row in rows) + "\n")
    return folder


def test_a_task_of_similarity_uses_the_pooling_of_the_checkpoint(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = sentence_encoder(word_model(tmp_path / "model"), {**OFF, "pooling_mode_cls_token": True}, *NORMALIZED)
    task = pairs(tmp_path / "pairs")
    made = request(tmp_path, "backend=torch_eager", f"model.path={folder}", "suite=accuracy", "task=stsb",
                   f"task.path={task}", "batch=[1,4]", "sequence=[16]")  # fmt: skip
    answer = export_stage(export_job(made, SourceForm()))
    assert answer.inputs.notes["pooling"] == "cls pooling (1_Pooling/config.json)"
    with np.load(answer.inputs.path) as arrays:
        vector = arrays["reference"][0]
    assert isinstance(made.question, AccuracyQuestion)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = model(**tokenizer(made.question.texts[0], return_tensors="pt")).last_hidden_state[0, 0]
    np.testing.assert_allclose(vector, expected.numpy() / np.linalg.norm(expected.numpy()), atol=2e-5)


def test_texts_are_tokenized_with_the_settings_of_the_checkpoint(tmp_path: Path) -> None:
    folder = sentence_encoder(word_model(tmp_path / "model"), {"pooling_mode": "mean"}, *NORMALIZED)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 4, "do_lower_case": true}')
    assert pooling_of(folder).texts(["THE Cat", ["A", "b"]]) == ["the cat", ["a", "b"]]
    made = request(tmp_path, "backend=torch_eager", f"model.path={folder}", "suite=accuracy", "task=stsb",
                   f"task.path={pairs(tmp_path / 'pairs')}", "batch=[4]", "sequence=[16]")  # fmt: skip
    inputs = export_stage(export_job(made, SourceForm())).inputs
    assert inputs.notes["cut"] == inputs.notes["texts"]
    with np.load(inputs.path) as arrays:
        assert arrays["0/attention_mask"].sum(1).tolist() == [4] * 4


def test_a_row_names_its_pooling(make_record: Any) -> None:
    lengths = {"distribution": "full", "tokens": "auto", "task": "stsb"}
    inputs = {"inputs": {"notes": {"pooling": "cls pooling (1_Pooling/config.json)"}}}
    record: Record = make_record(suite="accuracy", lengths=lengths, artifacts=inputs)
    assert "cls pooling (1_Pooling/config.json)" in accuracy_section([record])


def test_a_broken_pooling_file_is_named_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(
        Unavailable, match=r"^1_Pooling/config\.json is not JSON \(.*\); correct it, or fetch it again$"
    ):
        pooling_of(tmp_path)


def test_the_pooling_of_a_cell_replaces_that_of_the_files() -> None:
    stored = Pooling(("mean",), True, "1_Pooling/config.json", ("2_Dense",), longest=64)
    assert stored.changed_by(Output("embedding", ("cls", "mean"), False)) == Pooling(
        ("cls", "mean"), False, "options", longest=64
    )
    assert stored.changed_by(Output("embedding", normalize=False)).dense == ("2_Dense",)
