"""Transformers counts no position for one token id of some families; texts with this id are refused everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import OTHER_MODELS, TINY_MODELS
from word_models import WORDS, word_model, word_tokenizer

from backends.base import Shape, Unavailable
from backends.cache import ArtifactCache
from backends.inputs.batches import InputSource, Tokens, prepare_inputs
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.inputs.lengths import Lengths
from backends.inputs.tokenized import tokenize_texts, tokenize_words
from backends.model.checkpoint import input_names
from backends.model.checkpoint_files import read_config
from backends.model.families import padding_id, uncounted_id
from backends.model.identity import identity_of
from backends.onnx_.onnx_source import export_onnx
from backends.onnx_.reference_check import TOLERANCE, _exported, _transformers

UNCOUNTED = {"roberta": 1, "xlm-roberta": 1, "camembert": 1, "mpnet": 1}
TEXTS = ["the cat sat", "who saw the red dog"]
UNKNOWN = "the zebra sat"
"""A text with the token [UNK], which has the id 1 in the default tokenizer."""


@pytest.mark.parametrize("family", [*TINY_MODELS, *OTHER_MODELS])
def test_the_table_of_families_says_whether_transformers_counts_padding_inside_a_text(
    family: str, tmp_path: Path, shared_cache: ArtifactCache
) -> None:
    folder = word_model(tmp_path / "model", family)
    config, names = read_config(folder), input_names(folder)
    assert uncounted_id(config) == UNCOUNTED.get(family)
    padding = UNCOUNTED.get(family, padding_id(config))
    export, transformers = _exported(export_onnx(folder, family, shared_cache).path), _transformers(folder)

    def difference(inside: int) -> float:
        ids = np.asarray([[2, 10, 11, inside, 12, 13, 3]], np.int32)
        arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        feeds = {name: arrays[name] for name in names}
        return float(np.abs(export(feeds) - transformers(feeds)).max())

    assert difference(14) < TOLERANCE
    if family in UNCOUNTED:
        assert difference(padding) > 100 * TOLERANCE
    else:
        assert difference(padding) < TOLERANCE


def test_a_text_with_such_a_token_is_refused(tmp_path: Path, shared_cache: ArtifactCache) -> None:
    folder = word_model(tmp_path / "model", "roberta")
    word_tokenizer(folder)
    says = "the texts have the token 1, padding, for which this model counts no position; give texts without it"
    used = [*TEXTS, UNKNOWN]

    def source(texts: list[str], tokens: str = "auto") -> InputSource:
        return InputSource(folder, identity_of(folder), Lengths("texts", tokens), texts, 0, "cpu", shared_cache)

    for use in (
        lambda: tokenize_texts(folder, used, 16),
        lambda: tokenize_texts(folder, [["who", UNKNOWN]], 16, windows=True),
        lambda: tokenize_words(folder, [["the", "zebra"]], 16),
        lambda: Tokens.of(folder, "auto", used, 0).feeds([5, 5, 5], 8, ["input_ids"]),
        lambda: calibration_batches(folder, used, CalibrationSize(8, 16), 0),
        lambda: prepare_inputs(source(used), [Shape(3, 16)]),
    ):
        with pytest.raises(Unavailable, match=says):
            use()
    assert tokenize_texts(folder, TEXTS, 16).kind == "text"
    assert prepare_inputs(source(TEXTS), [Shape(2, 16)]).notes["tokens"] == "text"
    assert prepare_inputs(source(used, "random"), [Shape(2, 16)]).notes["tokens"] == "random"


def test_other_families_read_such_a_text(tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model")
    assert list(tokenize_texts(folder, [UNKNOWN], 16).ids[0]) == [2, 4, 1, 4 + WORDS.index("sat"), 3]


@pytest.mark.parametrize("padding", [2, 3, 12, 499])
def test_random_ids_do_not_have_it(padding: int, tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model", "roberta", pad_token_id=padding, max_position_embeddings=600)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    tokens = Tokens.of(folder, "auto", TEXTS, 0)
    features = tokenize_texts(folder, ["the cat sat on the mat"] * 64, 16, random_seed=0)
    for rows in (tokens.sentences, [tokens.prefix, tokens.suffix], features.ids):
        ids = np.unique(np.concatenate([np.asarray(row) for row in rows]))
        assert padding not in ids
        assert ids.max() < 500
