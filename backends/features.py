"""Texts of a task as rows of token ids, special tokens included, none longer than the longest sequence asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Shape, Unavailable
from backends.checkpoint_files import read_config
from backends.families import padding_id, token_types_of, vocabulary_of
from backends.tokenizer import check_ids, gives_token_types, has_tokenizer, load_tokenizer, no_tokens, outside

Text = str | Sequence[str]
"""One text, or a pair of them."""

NOWHERE = (-1, -1)


@dataclass(frozen=True)
class Features:
    """Rows of ids and of token types.

    Attributes:
        kind: "text", or "random" for a checkpoint that has no tokenizer.
        texts: the text that each row belongs to; a long context has several rows.
        offsets: for each row and token where in the second of a pair it stands [begin, end), or NOWHERE; empty unless
            windows were asked for.
        cut: how many texts were cut.
    """

    kind: str
    ids: Sequence[Sequence[int]]
    types: Sequence[Sequence[int]]
    texts: Sequence[int]
    pad: int
    offsets: Sequence[Sequence[tuple[int, int]]] = ()
    cut: int = 0

    def feeds(self, rows: Sequence[int], shape: Shape, names: Sequence[str]) -> dict[str, Array]:
        """The rows `rows` padded on the right, int32 [batch, sequence] by input name."""
        ids = np.full((shape.batch, shape.sequence), self.pad, np.int32)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for place, row in enumerate(rows):
            length = len(self.ids[row])
            ids[place, :length], mask[place, :length], types[place, :length] = self.ids[row], 1, self.types[row]
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: arrays[name] for name in names}


def featurize(
    folder: Path, texts: Sequence[Text], longest: int, seed: int, windows: bool = False, random: bool = False
) -> Features:
    """By the checkpoint's tokenizer.

    Args:
        windows: the texts are questions with their contexts; a context that is too long becomes several rows that
            overlap by a third of `longest`, as in SQuAD's baselines (128 of 384), and a question is cut to a third too.
            Otherwise texts are cut.
        random: whether a checkpoint without a tokenizer gets random ids, one a word: enough to compare outputs by.

    Raises:
        Unavailable: there is no tokenizer and random ids will not do, or the model cannot read the tokens.
    """
    config = read_config(folder)
    if not has_tokenizer(folder):
        if not random or windows or not all(isinstance(text, str) for text in texts):
            raise Unavailable(
                "the task needs a tokenizer.json, which this checkpoint lacks; task=fidelity does with random ids"
            )
        return _random([str(text) for text in texts], longest, seed, config)
    tokenizer = load_tokenizer(folder)
    parts = [[text] if isinstance(text, str) else list(text) for text in texts]
    columns = [list(column) for column in zip(*parts, strict=True)]
    found = (_windows if windows else _whole)(tokenizer, columns, longest, padding_id(config))
    _check(found, tokenizer, len(columns) > 1, config)
    return found


def _check(found: Features, tokenizer: Any, pairs: bool, config: Mapping[str, Any]) -> None:
    """Check that the model can read the rows.

    Raises:
        Unavailable: no row has a token of a text, a row is empty, or a token or its type has no embedding.
    """
    around = tokenizer.num_special_tokens_to_add(pair=pairs)
    if not any(len(row) > around for row in found.ids):
        raise no_tokens("")
    if empty := [found.texts[place] for place, row in enumerate(found.ids) if not row]:
        raise Unavailable(f"the tokenizer makes no tokens of text {empty[0] + 1}; leave it out")
    vocabulary, types = vocabulary_of(config), token_types_of(config)
    beyond = outside(tokenizer, found.ids, vocabulary)
    check_ids(beyond, beyond, vocabulary)
    if types and max(max(row) for row in found.types) >= types:
        raise Unavailable(
            f"the tokenizer gives token types beyond the {types} of the model; "
            "take token_type_ids out of model_input_names in tokenizer_config.json"
        )


def _whole(tokenizer: Any, columns: Sequence[Sequence[str]], longest: int, pad: int) -> Features:
    whole = tokenizer(*columns)["input_ids"]
    kept = tokenizer(*columns, truncation="longest_first", max_length=longest, return_token_type_ids=True)
    ids, cut = kept["input_ids"], sum(len(row) > longest for row in whole)
    return Features("text", ids, _types(tokenizer, kept), range(len(ids)), pad, cut=cut)


def _types(tokenizer: Any, kept: Mapping[str, Any]) -> list[list[int]]:
    """The token types that transformers would pass to the model: zeros where the tokenizer does not list them."""
    if gives_token_types(tokenizer):
        return list(kept["token_type_ids"])
    return [[0] * len(row) for row in kept["input_ids"]]


def _windows(tokenizer: Any, columns: Sequence[Sequence[str]], longest: int, pad: int) -> Features:
    if not tokenizer.is_fast:
        raise Unavailable("question answering needs offsets of tokens, which this tokenizer lacks; save tokenizer.json")
    questions, contexts = columns
    third = max(1, longest // 3)
    ends = [places[third - 1][1] if len(places) > third else len(question)
            for question, places in zip(questions, _places(tokenizer, questions), strict=True)]  # fmt: skip
    room = longest - third - tokenizer.num_special_tokens_to_add(pair=True)
    kept = tokenizer(
        [question[:end] for question, end in zip(questions, ends, strict=True)],
        contexts,
        truncation="only_second",
        max_length=longest,
        stride=max(0, min(third, room - 1)),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    offsets = [
        [tuple(place) if part == 1 else NOWHERE for place, part in zip(places, kept.sequence_ids(row), strict=True)]
        for row, places in enumerate(kept["offset_mapping"])
    ]
    texts = kept["overflow_to_sample_mapping"]
    cut = sum(end < len(question) for question, end in zip(questions, ends, strict=True))
    return Features("text", kept["input_ids"], _types(tokenizer, kept), texts, pad, offsets, cut=cut)


def _places(tokenizer: Any, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Where in each text its tokens are."""
    found = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [[tuple(place) for place in places] for places in found]


def _random(texts: Sequence[str], longest: int, seed: int, config: Mapping[str, Any]) -> Features:
    generator, most = np.random.default_rng(seed), vocabulary_of(config) - 1
    first, last = min(2, most), min(3, most)
    low, high = (10, min(400, most + 1)) if most >= 10 else (0, most + 1)
    words = [generator.integers(low, high, max(1, len(text.split()))).tolist() for text in texts]
    ids = [[first, *row[: longest - 2], last] for row in words]
    cut = sum(len(row) + 2 > longest for row in words)
    return Features("random", ids, [[0] * len(row) for row in ids], range(len(ids)), padding_id(config), cut=cut)
