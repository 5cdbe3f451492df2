"""Tokenized texts of a task: rows of token ids with special tokens, not longer than the longest sequence of a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, Shape, Unavailable
from backends.model.checkpoint_files import read_config
from backends.model.families import padding_id, token_types_of, uncounted_id, vocabulary_of
from backends.model.tokenizer import (
    check_counted,
    check_ids,
    counted,
    gives_token_types,
    has_tokenizer,
    ids_out_of_range,
    load_tokenizer,
    no_tokens_error,
)

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

Text = str | Sequence[str]
"""A text, or a pair of texts."""

NO_OFFSETS = (-1, -1)
"""Offsets of a token that is not in the second text of a pair."""


@dataclass(frozen=True)
class Features:
    """Rows of ids and token types.

    Attributes:
        kind: "text", or "random" for a checkpoint without a tokenizer.
        ids, types: ids and token types of each row.
        texts: index of the text of each row; a long context has several rows.
        pad: id of padding.
        offsets: for each token of each row, its position [begin, end) in the second text of a pair, or NOWHERE; empty
            if the rows are not windows.
        cut: number of truncated texts.
        words: for each word of each row, its first token, or -1 if it was cut off; empty if the texts are not lists.
    """

    kind: str
    ids: Sequence[Sequence[int]]
    types: Sequence[Sequence[int]]
    texts: Sequence[int]
    pad: int
    offsets: Sequence[Sequence[tuple[int, int]]] = ()
    cut: int = 0
    words: Sequence[Sequence[int]] = ()

    def first_tokens(self) -> Array:
        """Return `words` as an array: int32 [rows, most words], -1 after the last word."""
        places = np.full((len(self.words), max(map(len, self.words))), -1, np.int32)
        for row, own in zip(places, self.words, strict=True):
            row[: len(own)] = own
        return places

    def feeds(self, rows: Sequence[int], shape: Shape, names: Sequence[str]) -> dict[str, Array]:
        """Return the rows `rows`, padded on the right: int32 [batch, sequence] by input name."""
        ids = np.full((shape.batch, shape.sequence), self.pad, np.int32)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for index, row in enumerate(rows):
            length = len(self.ids[row])
            ids[index, :length], mask[index, :length], types[index, :length] = self.ids[row], 1, self.types[row]
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: arrays[name] for name in names}


def tokenize_texts(
    folder: Path, texts: Sequence[Text], longest: int, windows: bool = False, random_seed: int | None = None
) -> Features:
    """Tokenize texts with the tokenizer of the checkpoint.

    Args:
        longest: largest number of tokens of a row, special tokens included.
        windows: whether the texts are pairs of a question and its context. A context that is too long is then split
            into several rows, which overlap by a third of `longest` as in the SQuAD baselines (128 of 384). A question
            is truncated to a third of `longest`. If false, texts are truncated.
        random_seed: seed of random ids, one per word, that are used if the checkpoint has no tokenizer. They are
            sufficient to compare outputs. None: such a checkpoint is unavailable.

    Raises:
        Unavailable: the checkpoint has no tokenizer and random ids are not sufficient, or the model does not accept the
            tokens.
    """
    config = read_config(folder)
    if not has_tokenizer(folder):
        if random_seed is None or windows or not all(isinstance(text, str) for text in texts):
            raise _no_tokenizer()
        return _random([str(text) for text in texts], longest, random_seed, config)
    tokenizer = load_tokenizer(folder)
    items = [[text] if isinstance(text, str) else list(text) for text in texts]
    columns = [list(column) for column in zip(*items, strict=True)]
    _check_room(tokenizer, len(columns), longest)
    features = (_windows if windows else _truncated)(tokenizer, columns, longest, padding_id(config))
    _check(features, tokenizer, len(columns) > 1, config)
    return features


def _no_tokenizer() -> Unavailable:
    return Unavailable(
        "this checkpoint has no tokenizer, which the task needs; add tokenizer.json to its folder, or use "
        "task=sentences, which also takes random ids"
    )


def _check_room(tokenizer: PreTrainedTokenizerBase, parts: int, longest: int) -> None:
    """Raise Unavailable if a row has no room for the special tokens and one token of each part of a text."""
    around = tokenizer.num_special_tokens_to_add(pair=parts > 1)
    if longest < around + parts:
        raise Unavailable(
            f"the longest sequence has {longest} tokens, but {around} special tokens and a token of each text need "
            f"{around + parts}; give a longer one with sequence="
        )


def tokenize_words(folder: Path, texts: Sequence[Sequence[str]], longest: int) -> Features:
    """Tokenize texts that are lists of words, with a blank between two words.

    Raises:
        Unavailable: the checkpoint has no tokenizer that gives the position of tokens, or the model does not accept the
            tokens.
    """
    if not has_tokenizer(folder):
        raise _no_tokenizer()
    config, tokenizer = read_config(folder), load_tokenizer(folder)
    if not tokenizer.is_fast:
        raise Unavailable("tags of words need token offsets, which this tokenizer lacks; save tokenizer.json")
    _check_room(tokenizer, 1, longest)
    joined = [" ".join(words) for words in texts]
    features = _truncated(tokenizer, [joined], longest, padding_id(config))
    _check(features, tokenizer, False, config)
    encoding = tokenizer(joined, truncation=True, max_length=longest)
    first: list[list[int]] = []
    for row, words in enumerate(texts):
        begin, tokens = 0, []
        for word in words:
            letters = word.lstrip()
            token = encoding.char_to_token(row, begin + len(word) - len(letters)) if letters else None
            tokens.append(-1 if token is None else token)
            begin += len(word) + 1
        first.append(tokens)
    return replace(features, words=first)


def _check(features: Features, tokenizer: PreTrainedTokenizerBase, pairs: bool, config: Mapping[str, object]) -> None:
    """Check that the model accepts the rows.

    Raises:
        Unavailable: no row has a token of a text, a row is empty, a token or its type has no embedding, or a token has
            no position of its own.
    """
    around = tokenizer.num_special_tokens_to_add(pair=pairs)
    if not any(len(row) > around for row in features.ids):
        raise no_tokens_error("")
    if empty := [text for text, row in zip(features.texts, features.ids, strict=True) if not row]:
        raise Unavailable(f"the tokenizer makes no tokens from text {empty[0] + 1}; remove it")
    vocabulary, types = vocabulary_of(config), token_types_of(config)
    beyond = ids_out_of_range(tokenizer, features.ids, vocabulary)
    check_ids(beyond, beyond, vocabulary)
    check_counted(features.ids, uncounted_id(config))
    if types and max(max(row) for row in features.types) >= types:
        raise Unavailable(
            f"the tokenizer gives token types above the {types} of the model; "
            "remove token_type_ids from model_input_names in tokenizer_config.json"
        )


def _truncated(
    tokenizer: PreTrainedTokenizerBase, columns: Sequence[Sequence[str]], longest: int, pad: int
) -> Features:
    full = tokenizer(*columns)["input_ids"]
    encoding = tokenizer(*columns, truncation="longest_first", max_length=longest, return_token_type_ids=True)
    ids, cut = encoding["input_ids"], sum(len(row) > longest for row in full)
    return Features("text", ids, _types(tokenizer, encoding), range(len(ids)), pad, cut=cut)


def _types(tokenizer: PreTrainedTokenizerBase, encoding: BatchEncoding) -> list[list[int]]:
    """Return the token types that transformers would pass to the model: zeros if the tokenizer does not list them."""
    if gives_token_types(tokenizer):
        return list(encoding["token_type_ids"])
    return [[0] * len(row) for row in encoding["input_ids"]]


def _windows(tokenizer: PreTrainedTokenizerBase, columns: Sequence[Sequence[str]], longest: int, pad: int) -> Features:
    if not tokenizer.is_fast:
        raise Unavailable("question answering needs token offsets, which this tokenizer lacks; save tokenizer.json")
    questions, contexts = columns
    third = max(1, longest // 3)
    ends = [offsets[third - 1][1] if len(offsets) > third else len(question)
            for question, offsets in zip(questions, _token_offsets(tokenizer, questions), strict=True)]  # fmt: skip
    room = longest - third - tokenizer.num_special_tokens_to_add(pair=True)
    encoding = tokenizer(
        [question[:end] for question, end in zip(questions, ends, strict=True)],
        contexts,
        truncation="only_second",
        max_length=longest,
        stride=max(0, min(third, room - 1)),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    context_offsets = [
        [tuple(span) if part == 1 else NO_OFFSETS for span, part in zip(spans, encoding.sequence_ids(row), strict=True)]
        for row, spans in enumerate(encoding["offset_mapping"])
    ]
    texts = encoding["overflow_to_sample_mapping"]
    cut = sum(end < len(question) for question, end in zip(questions, ends, strict=True))
    return Features("text", encoding["input_ids"], _types(tokenizer, encoding), texts, pad, context_offsets, cut=cut)


def _token_offsets(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Return the position [begin, end) of each token in each text."""
    mapping = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [[tuple(span) for span in spans] for spans in mapping]


def _random(texts: Sequence[str], longest: int, seed: int, config: Mapping[str, object]) -> Features:
    generator, vocabulary, uncounted = np.random.default_rng(seed), vocabulary_of(config), uncounted_id(config)
    first, last = counted(np.minimum((2, 3), vocabulary - 1), uncounted, vocabulary).tolist()
    low, high = (10, min(400, vocabulary)) if vocabulary > 10 else (0, vocabulary)
    drawn = [generator.integers(low, high, max(1, len(text.split()))) for text in texts]
    words = [counted(ids, uncounted, vocabulary).tolist() for ids in drawn]
    ids = [[first, *row[: longest - 2], last] for row in words]
    cut = sum(len(row) + 2 > longest for row in words)
    return Features("random", ids, [[0] * len(row) for row in ids], range(len(ids)), padding_id(config), cut=cut)
