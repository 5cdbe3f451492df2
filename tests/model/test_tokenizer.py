"""Tokens are equal to those of the checkpoint's own tokenizer, and texts that a model cannot read are refused in one
line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from word_models import SPECIALS, WORDS, word_model, word_tokenizer

from backends.base import Shape, Unavailable
from backends.cache import ArtifactCache
from backends.inputs.batches import InputSource, Tokens, prepare_inputs
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.inputs.lengths import Lengths
from backends.inputs.task_batches import TaskTexts, prepare_task_batches
from backends.inputs.tokenized import tokenize_texts, tokenize_words
from backends.model.heads import head_of
from backends.model.identity import identity_of
from backends.model.tokenizer import has_tokenizer, load_tokenizer
from backends.model_output import Output

TEXTS = ["the cat sat on a mat", "who saw the red dog", "it ran to sea"]
ALL = ("input_ids", "attention_mask", "token_type_ids")


def transformers_inputs(folder: Path, *texts: str) -> dict[str, list[int]]:
    from transformers import AutoTokenizer

    return {name: list(row) for name, row in AutoTokenizer.from_pretrained(folder)(*texts).items()}


@pytest.mark.parametrize("listed", [True, False])
def test_token_types_are_passed_as_in_transformers(listed: bool, tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model")
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if listed else [])
    word_tokenizer(folder, model_input_names=names)
    expected = transformers_inputs(folder, "the cat", "a dog")
    assert ("token_type_ids" in expected) == listed
    for windows in (False, True):
        features = tokenize_texts(folder, [["the cat", "a dog"]], 16, windows=windows)
        assert list(features.ids[0]) == expected["input_ids"]
        assert list(features.types[0]) == expected.get("token_type_ids", [0] * len(expected["input_ids"]))


def test_a_token_type_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model", type_vocab_size=1)
    word_tokenizer(folder, model_input_names=list(ALL))
    with pytest.raises(Unavailable, match="token types above the 1 of the model"):
        tokenize_texts(folder, [["the cat", "a dog"]], 16)
    assert tokenize_texts(folder, ["the cat"], 16).types[0] == [0] * 4


@pytest.mark.parametrize(
    ("names", "around"),
    [
        (SPECIALS, True),
        ({"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}, True),
        ({"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}, True),
        ({"unk_token": "[UNK]"}, False),
    ],
    ids=["all", "bos and eos", "no padding", "none"],
)
def test_sequences_have_the_special_tokens_that_the_tokenizer_adds(
    names: dict[str, str], around: bool, tmp_path: Path
) -> None:
    folder = word_model(tmp_path / "model")
    for file in (*folder.glob("tokenizer*"), *folder.glob("special*")):
        file.unlink()
    word_tokenizer(folder, around=around, names=names)
    expected = transformers_inputs(folder, TEXTS[0])["input_ids"]
    tokens = Tokens.of(folder, "auto", TEXTS, 0)
    assert tokens.natural_length(0) == len(expected)
    feeds = tokens.feeds([len(expected), 2], 12, ALL)
    assert feeds["input_ids"][0, : len(expected)].tolist() == expected
    assert (feeds["input_ids"][0, len(expected) :] == 0).all()
    assert feeds["attention_mask"].sum(1).tolist() == [len(expected), 2]
    features = tokenize_texts(folder, TEXTS, 16)
    assert list(features.ids[0]) == expected
    assert features.feeds([0], Shape(1, 16), ALL)["input_ids"][0, len(expected) :].tolist() == [0] * (
        16 - len(expected)
    )
    for batch in calibration_batches(folder, TEXTS, CalibrationSize(8, 16), 0):
        assert batch["input_ids"].dtype == np.int32


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Return a checkpoint whose tokenizer has one token, "extra", without a row in the embedding."""
    folder = word_model(tmp_path / "model", vocab_size=4 + len(WORDS))
    word_tokenizer(folder, (*WORDS, "extra"))
    return folder


def test_a_token_without_an_embedding_is_refused_only_if_it_is_used(wide: Path, shared_cache: ArtifactCache) -> None:
    def source(texts: list[str], tokens: str = "auto") -> InputSource:
        return InputSource(wide, identity_of(wide), Lengths("texts", tokens), texts, 0, "cpu", shared_cache)

    says = rf"have token {4 + len(WORDS)} \('extra'\) and the model's embedding has {4 + len(WORDS)} rows.*task\.path="
    used = [*TEXTS, "the extra cat"]
    assert prepare_inputs(source(TEXTS), [Shape(2, 16)]).notes["tokens"] == "text"
    assert prepare_inputs(source(used), [Shape(2, 8)]).notes["tokens"] == "text"  # the first two rows do not contain it
    assert prepare_inputs(source(used, "random"), [Shape(4, 8)]).notes["tokens"] == "random"
    assert tokenize_texts(wide, TEXTS, 16).kind == "text"
    for use in (
        lambda: prepare_inputs(source(used), [Shape(4, 16)]),
        lambda: calibration_batches(wide, used, CalibrationSize(8, 16), 0),
        lambda: tokenize_texts(wide, used, 16),
        lambda: tokenize_texts(wide, [["who", "the extra cat"]], 16, windows=True),
        lambda: prepare_task_batches(source([]), [Shape(2, 16)], TaskTexts(used)),
    ):
        with pytest.raises(Unavailable, match=says):
            use()


@pytest.mark.parametrize("text", ["\u200b", " ", ""])
def test_texts_without_a_token_are_refused_and_do_not_loop(text: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, normalizers

    folder = word_model(tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Replace("\u200b", " ")
    tokenizer.save(str(folder / "tokenizer.json"))
    says = r"the tokenizer makes no tokens from these texts; give other texts as task\.path=FILE"
    with pytest.raises(Unavailable, match=rf"{says}.*lengths\.tokens=random"):
        Tokens.of(folder, "auto", [text, text], 0)
    with pytest.raises(Unavailable, match=says):
        calibration_batches(folder, [text], CalibrationSize(8, 16), 0)
    with pytest.raises(Unavailable, match=says):
        tokenize_texts(folder, [text, text], 16)
    with pytest.raises(Unavailable, match=says):
        tokenize_texts(folder, [[text, text]], 16)
    assert Tokens.of(folder, "random", [text], 0).kind == "random"
    # A single text with tokens is enough.
    assert Tokens.of(folder, "auto", [text, "the cat"], 0).feeds([8], 8, ALL)["input_ids"][0, 1:3].tolist() == [4, 5]
    assert len(tokenize_texts(folder, [text, "the cat"], 16).ids) == 2


@pytest.mark.parametrize(
    ("texts", "longest", "needed", "windows"),
    [
        (["the cat"], 2, 3, False),
        ([["who", "the cat"]], 4, 5, False),
        ([["who", "the cat"]], 4, 5, True),
        ([["who", "the cat"]], 1, 5, True),
    ],
)
def test_a_sequence_without_room_for_a_text_is_refused(
    texts: Sequence[str | Sequence[str]], longest: int, needed: int, windows: bool, tmp_path: Path
) -> None:
    folder = word_model(tmp_path / "model")
    says = rf"has {longest} tokens, but \d special tokens and a token of each text need {needed}; give a longer one"
    with pytest.raises(Unavailable, match=says):
        tokenize_texts(folder, texts, longest, windows=windows)
    assert tokenize_texts(folder, texts, needed, windows=windows).ids[0][1:-1]


def test_words_without_room_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="2 special tokens and a token of each text need 3"):
        tokenize_words(word_model(tmp_path / "model"), [["the", "cat"]], 2)


def test_a_text_without_tokens_is_named(tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model")
    word_tokenizer(folder, around=False)
    with pytest.raises(Unavailable, match="makes no tokens from text 2; remove it"):
        tokenize_texts(folder, ["the cat", " ", "the dog"], 16)


def test_a_vocabulary_file_is_enough_for_a_tokenizer(tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model")
    for file in (*folder.glob("tokenizer*"), *folder.glob("special*")):
        file.unlink()
    assert not has_tokenizer(folder)
    with pytest.raises(Unavailable, match="lacks; use random"):
        Tokens.of(folder, "text", TEXTS, 0)
    (folder / "vocab.txt").write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS)))
    before = identity_of(folder)
    expected = transformers_inputs(folder, "the cat", "a dog")
    features = tokenize_texts(folder, [["the cat", "a dog"]], 16)
    assert (list(features.ids[0]), list(features.types[0])) == (expected["input_ids"], expected["token_type_ids"])
    assert Tokens.of(folder, "auto", TEXTS, 0).kind == "text"
    (folder / "vocab.txt").write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *reversed(WORDS))))
    assert identity_of(folder) != before


def test_a_tokenizer_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(Unavailable, match=r"cannot read the checkpoint's tokenizer \(.*save it again") as refused:
        load_tokenizer(folder)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_random_ids_fit_a_small_vocabulary(tmp_path: Path) -> None:
    for vocabulary in (3, 12, 60):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": vocabulary}))
        feeds = Tokens.of(tmp_path, "random", [], 0).feeds([9, 4], 9, ALL)
        assert feeds["input_ids"].max() < vocabulary
        features = tokenize_texts(tmp_path, ["one two three", "four"], 8, random_seed=0)
        assert max(max(row) for row in features.ids) < vocabulary


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_heads_are_read_in_every_saved_dtype(kind: torch.dtype, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = word_model(tmp_path / "model", head="answers")
    stored = {name: tensor.to(kind) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    head = head_of(folder, Output("spans"))
    assert head is not None
    (layer,) = head.layers
    assert layer.weight is not None
    assert layer.weight.dtype == np.float32
    np.testing.assert_array_equal(layer.weight, stored["qa_outputs.weight"].float().numpy())
    np.testing.assert_array_equal(layer.bias, stored["qa_outputs.bias"].float().numpy())
