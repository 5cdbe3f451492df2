"""Texts of a task as batches with the shapes of a cell, and the FP32 reference output of each text.

Texts are shuffled and batch sizes are drawn at random, so that texts have different neighbours and different padding.
If a neighbour or padding affects a text, its output shows the error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.base import Array, Artifact, Shape, versions_of
from backends.inputs.batches import InputSource
from backends.inputs.reference_outputs import PACKAGES
from backends.inputs.tokenized import NO_OFFSETS, Features, Text, tokenize_texts, tokenize_words
from backends.model.checkpoint import input_names
from backends.model_output import SPANS


@dataclass(frozen=True)
class TaskTexts:
    """Texts of a task.

    Attributes:
        texts: texts, pairs of texts, or lists of words.
        random: whether to use random ids if the checkpoint has no tokenizer. They are valid for drift, not for the
            metric of a task.
        most: number of tokens to which the checkpoint itself truncates texts; 0 for no limit.
        words: whether each text is a list of words.
    """

    texts: Sequence[Text]
    random: bool = False
    most: int = 0
    words: bool = False

    @property
    def key(self) -> dict[str, object]:
        """Texts and their limit, for cache keys."""
        optional = {"most": self.most, "words": self.words}
        return {"texts": list(self.texts), **{name: value for name, value in optional.items() if value}}


def prepare_task_batches(origin: InputSource, shapes: Sequence[Shape], task: TaskTexts) -> Artifact:
    """Write an .npz with the batches of a task and their FP32 reference outputs. The result is cached.

    A row is a text; for the output "spans" it is a window of a text. The arrays are:

        reference                 FP32, the output of each row: [rows, features] or [rows, longest sequence, features]
                                  with 0 at padding
        <number>/<input>          int32 [batch, sequence], by number of the batch
        <number>/rows             the rows of the batch; more rows of its inputs only fill the batch
        text                      for "spans": [rows], the text of each row
        offsets                   for "spans": [rows, sequence, 2], position of each token in the context
        words                     for lists of words: int32 [rows, most words], the first token of each word; -1 for
                                  words that were cut off and after the last word

    The notes give the number of truncated texts.

    Args:
        origin: the checkpoint and its output; the texts and lengths of `origin` are not used.

    Raises:
        Unsupported: the checkpoint does not have the head.
        Unavailable: the checkpoint does not have the tokenizer that the texts need.
    """

    folder, seed, windows = origin.folder, origin.seed, origin.output.kind == SPANS

    def build(path: Path) -> Mapping[str, object]:
        longest = max(shape.sequence for shape in shapes)
        limit, random_seed = min(longest, task.most or longest), seed if task.random else None
        names = input_names(folder)
        if task.words:
            features = tokenize_words(folder, task.texts, limit)
            arrays = {"words": features.first_tokens()}
        else:
            features = tokenize_texts(folder, task.texts, limit, windows, random_seed)
            arrays = _windows(features, longest) if windows else {}
        run = origin.reference()
        for number, (rows, shape) in enumerate(batches([len(row) for row in features.ids], shapes, seed)):
            feeds = features.feeds([*rows, *rows[:1] * (shape.batch - len(rows))], shape, names)
            output = run(feeds)
            if not number:
                size = (longest, *output.shape[2:]) if origin.output.per_token else output.shape[1:]
                reference = np.zeros((len(features.ids), *size), np.float32)
            scatter_rows(reference, rows, masked(output, feeds["attention_mask"]))
            arrays |= {f"{number}/{name}": array for name, array in feeds.items()}
            arrays[f"{number}/rows"] = np.asarray(rows)
        np.savez(path, reference=reference, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        return {"tokens": features.kind, "texts": len(task.texts), "cut": features.cut}

    key = {**origin.key, "shapes": [str(shape) for shape in shapes], **task.key, "form": 3}
    return origin.cache.get("evaluation", key, "inputs.npz", build, versions_of(PACKAGES))


def scatter_rows(target: Array, rows: Sequence[int] | Array, values: Array) -> None:
    """Copy the values of a batch to the rows `rows` of `target`. Shorter sequences leave the end of a row unchanged."""
    valid, index = values[: len(rows)], np.asarray(rows)
    if valid.ndim == 2:
        target[index] = valid
    else:
        target[index, : valid.shape[1]] = valid


def masked(output: Array, mask: Array) -> Array:
    """Return an output in FP32, with 0 at padding if it has values for each token.

    Args:
        output: [batch, features] or [batch, sequence, features] of any float type.
        mask: int32 [batch, sequence].
    """
    values = output.astype(np.float32)
    return values if values.ndim == 2 else np.where(mask[..., None] > 0, values, np.float32(0))


def batches(lengths: Sequence[int], shapes: Sequence[Shape], seed: int) -> Iterator[tuple[list[int], Shape]]:
    """Yield the indices of the rows of each batch, and its shape. The sequence length is the shortest that fits."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths)).tolist()
    sizes, sequences = sorted({shape.batch for shape in shapes}), sorted({shape.sequence for shape in shapes})
    begin = 0
    while begin < len(order):
        size = int(generator.choice(sizes))
        rows = order[begin : begin + size]
        longest = max(lengths[row] for row in rows)
        yield rows, Shape(size, next((s for s in sequences if s >= longest), sequences[-1]))
        begin += size


def _windows(features: Features, longest: int) -> dict[str, Array]:
    offsets = np.full((len(features.ids), longest, 2), NO_OFFSETS, np.int32)
    for row, places in enumerate(features.offsets):
        offsets[row, : len(places)] = places
    return {"text": np.asarray(features.texts, np.int32), "offsets": offsets}
