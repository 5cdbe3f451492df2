"""Texts of a task as rows of token ids, special tokens included, none longer than the longest sequence asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Shape, Unavailable

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
        Unavailable: there is no tokenizer, and random ids will not do.
    """
    if not (folder / "tokenizer.json").is_file():
        if not random or windows or not all(isinstance(text, str) for text in texts):
            raise Unavailable(
                "the task needs a tokenizer.json, which this checkpoint lacks; task=fidelity does with random ids"
            )
        return _random([str(text) for text in texts], longest, seed)
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    parts = [[text] if isinstance(text, str) else list(text) for text in texts]
    columns = [list(column) for column in zip(*parts, strict=True)]
    if windows:
        return _windows(tokenizer, columns, longest)
    whole = tokenizer(*columns)["input_ids"]
    kept = tokenizer(*columns, truncation="longest_first", max_length=longest, return_token_type_ids=True)
    ids, cut = kept["input_ids"], sum(len(row) > longest for row in whole)
    return Features("text", ids, kept["token_type_ids"], range(len(ids)), tokenizer.pad_token_id, cut=cut)


def _windows(tokenizer: Any, columns: Sequence[Sequence[str]], longest: int) -> Features:
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
    return Features("text", kept["input_ids"], kept["token_type_ids"], texts, tokenizer.pad_token_id, offsets, cut=cut)


def _places(tokenizer: Any, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Where in each text its tokens are."""
    found = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [[tuple(place) for place in places] for places in found]


def _random(texts: Sequence[str], longest: int, seed: int) -> Features:
    generator, first, last, pad = np.random.default_rng(seed), 2, 3, 1
    words = [generator.integers(10, 400, max(1, len(text.split()))).tolist() for text in texts]
    ids = [[first, *row[: longest - 2], last] for row in words]
    cut = sum(len(row) + 2 > longest for row in words)
    return Features("random", ids, [[0] * len(row) for row in ids], range(len(ids)), pad, cut=cut)
