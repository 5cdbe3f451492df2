"""Rows of requests through a session: padding, errors of single rows, outputs by name, and model.py."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from word_models import WORDS, word_tokenizer

from backends.base import Array, Artifact, BuildSpec, Device, Feeds, Session, Shape
from backends.model_output import Output
from backends.null_.null_options import NullOptions
from backends.served_model.running_model import RunningModel, named_outputs
from backends.served_model.served_facts import ServedFacts
from backends.served_model.served_texts import Row, tokenizer_of
from backends.served_model.triton_model import TritonPythonModel

BAD_ID = 13
EMBEDDING, HIDDEN = Output("embedding", per_token=False), Output("hidden")
NAMES = ("input_ids", "attention_mask", "token_type_ids")
SPEC = BuildSpec("fp32", Device(), (Shape(1, 8), Shape(4, 8)), False, Path("cache"), NullOptions(), output=EMBEDDING)
FACTS = ServedFacts("null", SPEC, Artifact(Path("model/x"), "a" * 64), NAMES, pad=5)


class Sums(Session):
    """Session whose output is the sum of the ids and of the types without padding, or each id and type."""

    def __init__(self, per_token: bool = False) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.per_token = per_token

    def changing(self, feeds: Feeds) -> Iterator[str]:
        yield "shape"

    def copy_in(self, feeds: Feeds) -> None:
        self.feeds = feeds

    def step(self) -> None:
        ids = self.feeds["input_ids"]
        if (ids == BAD_ID).any():
            raise ValueError("a bad id")
        self.shapes.append(ids.shape)

    def wait(self) -> None:
        pass

    def fetch(self) -> Array:
        mask, kept = self.feeds["attention_mask"], [self.feeds[name] for name in ("input_ids", "token_type_ids")]
        stacked = np.stack([array * mask for array in kept], -1).astype(np.float32)
        return stacked if self.per_token else stacked.sum(1)


def model(per_token: bool = False, **changes: object) -> tuple[RunningModel, Sums]:
    session = Sums(per_token)
    facts = replace(FACTS, spec=replace(SPEC, output=HIDDEN if per_token else EMBEDDING))
    return RunningModel(session, replace(facts, **changes)), session  # type: ignore[arg-type]


def rows(*ids: list[int]) -> list[Row]:
    return [Row.of(item) for item in ids]


def test_rows_are_answered_in_batches_of_the_largest_size() -> None:
    running, session = model()
    answers = running.answers(rows(*([number, 1] for number in range(20, 26))))
    assert [list(answer) for answer in answers] == [[number + 1.0, 0.0] for number in range(20, 26)]
    assert session.shapes == [(4, 2), (2, 2)]


def test_a_row_with_padding_inside_its_text_is_refused_if_the_model_counts_no_position_for_it() -> None:
    running, _ = model(uncounted=1)
    refused, answer = running.answers(rows([2, 1, 3], [2, 4, 3]))
    assert refused == "the request has token 1, padding, inside its text; remove it"
    assert not isinstance(answer, str)
    assert answer[0] == 9


def test_batches_are_padded_to_built_shapes() -> None:
    running, session = model(pads_to_built=True)
    assert [list(answer) for answer in running.answers(rows([1, 2], [3]))] == [[3.0, 0.0], [3.0, 0.0]]
    assert session.shapes == [(4, 8)]


def test_a_row_that_is_too_long_or_empty_does_not_affect_others() -> None:
    running, session = model()
    answers = running.answers(rows([1] * 9, [7], []))
    assert answers[0] == "the request has 9 tokens; at most 8 are allowed: shorten it"
    assert list(answers[1]) == [7.0, 0.0]
    assert answers[2] == "the request has no tokens"
    assert session.shapes == [(1, 1)]


def test_a_row_with_which_the_session_fails_does_not_affect_others() -> None:
    running, _ = model()
    answers = running.answers(rows([1], [BAD_ID], [2]))
    assert [list(answers[0]), answers[1], list(answers[2])] == [[1.0, 0.0], "ValueError: a bad id", [2.0, 0.0]]


def test_outputs_of_tokens_have_no_padding() -> None:
    running, _ = model(per_token=True)
    answers = [answer for answer in running.answers(rows([4, 5, 6], [7])) if not isinstance(answer, str)]
    assert [answer.shape for answer in answers] == [(3, 2), (1, 2)]
    (hidden,) = named_outputs(running.facts, answers).values()
    assert hidden.tolist() == [[[4, 0], [5, 0], [6, 0]], [[7, 0], [0, 0], [0, 0]]]


def test_a_classifier_names_its_best_label() -> None:
    facts = replace(FACTS, spec=replace(SPEC, output=Output("logits", per_token=False)), labels=("no", "ja ü"))
    outputs = named_outputs(facts, [np.float32([0, 0]), np.float32([0, 2])])
    assert outputs["label"].tolist() == [[b"no"], ["ja ü".encode()]]
    assert outputs["probability"][:, 0] == pytest.approx([0.5, np.exp(2) / (1 + np.exp(2))])
    assert list(named_outputs(replace(facts, labels=()), [np.float32([0, 2])])) == ["logits"]


def test_the_facts_survive_the_way_through_their_file(tmp_path: Path) -> None:
    facts = replace(FACTS, pads_to_built=True, tokenizes=True, truncated_to=9, lower_case=True, labels=("a", "b"))
    facts.write(tmp_path)
    assert ServedFacts.read(tmp_path) == facts


@pytest.mark.parametrize("fast", [True, False], ids=["tokenizers", "transformers"])
def test_texts_become_the_ids_of_transformers(fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word_tokenizer(tmp_path)
    if not fast:
        monkeypatch.setattr("backends.served_model.served_texts.TOKENIZER", "missing.json")
    tokenize = tokenizer_of(tmp_path, replace(FACTS, lower_case=True, truncated_to=4))
    place = {word: number + 4 for number, word in enumerate(WORDS)}
    first, second = tokenize(["The CAT", "the cat sat on a mat"], [])
    assert first.ids.tolist() == [2, place["the"], place["cat"], 3]
    assert second.ids.tolist() == [2, place["the"], place["cat"], 3]
    (pair,) = tokenizer_of(tmp_path, FACTS)(["cat"], ["mat"])
    assert pair.types.tolist() == [0, 0, 0, 1, 1]


class Tensor:
    def __init__(self, name: str, array: Array) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> Array:
        return self.array


@pytest.fixture
def server_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Provide the module that Triton's Python backend gives to a model."""
    module = types.ModuleType("triton_python_backend_utils")

    def tensor(request: Mapping[str, Array], name: str) -> Tensor | None:
        return Tensor(name, request[name]) if name in request else None

    def response(tensors: list[Tensor], error: str = "") -> object:
        return error or {item.name: item.array for item in tensors}

    vars(module).update(get_input_tensor_by_name=tensor, Tensor=Tensor, TritonError=str, InferenceResponse=response)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)


@pytest.mark.usefixtures("server_module")
def test_each_request_of_a_batch_has_its_own_answer_or_error(tmp_path: Path) -> None:
    word_tokenizer(tmp_path)
    served = TritonPythonModel()
    served._model, _ = model()
    served._tokenize = tokenizer_of(tmp_path, FACTS)
    text = np.array([[b"cat"], [b"mat"]], np.object_)
    ids = np.array([[4, 5, 9], [6, 7, 9]], np.int32)
    responses = served.execute([
        {"text": text},
        {"input_ids": ids, "attention_mask": np.array([[1, 1, 1], [1, 0, 0]], np.int32)},
        {"input_ids": np.full((1, 9), 1, np.int32)},
        {},
        {"text": np.array([[b"\xff"]], np.object_)},
        {"input_ids": ids, "token_type_ids": ids[:1]},
    ])  # fmt: skip
    sums = [float(2 + 4 + WORDS.index(word) + 3) for word in ("cat", "mat")]
    assert responses[0]["embedding"][:, 0].tolist() == sums  # type: ignore[index]
    assert responses[1]["embedding"][:, 0].tolist() == [18.0, 6.0]  # type: ignore[index]
    assert responses[2] == "the request has 9 tokens; at most 8 are allowed: shorten it"
    assert responses[3] == "the request needs one of the inputs text and input_ids"
    assert str(responses[4]).startswith("the request cannot be read: 'utf-8' codec")
    assert str(responses[5]).endswith("must have the same shape")
    served._tokenize = None
    assert served.execute([{"text": text}]) == [
        "the request cannot be read: this model has no tokenizer; send input_ids"
    ]
