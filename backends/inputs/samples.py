"""Sample texts of an exported model: token ids and FP32 reference outputs, and the batches in which they run.

A sample is one text. Its arrays are in an .npz under "<number>/<name>", so that a check needs neither a tokenizer nor
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.base import Array, Artifact, Feeds, Shape, versions_of
from backends.inputs.batches import InputSource
from backends.inputs.reference_outputs import PACKAGES
from backends.inputs.tokenized import Features, tokenize_texts
from backends.model.checkpoint import input_names
from backends.model.pooling import Pooling

FORM = 1
"""Version of the .npz, for the cache."""


@dataclass(frozen=True)
class ArrangedInputs:
    """A batch in the layout of a model.

    Attributes:
        arrays: arrays by input name.
        places: for each token of the batch, int [batch, sequence], its row in the output as [tokens, hidden].
    """

    arrays: Mapping[str, Array]
    places: Array


Arrange = Callable[[Feeds], ArrangedInputs]


def padded_rows(feeds: Feeds) -> ArrangedInputs:
    """Return a batch in the layout of an exported graph: every input [batch, sequence]."""
    ids = feeds["input_ids"]
    return ArrangedInputs(feeds, np.arange(ids.size).reshape(ids.shape))


@dataclass(frozen=True)
class Sample:
    """One text.

    Attributes:
        ids, types: int32 [tokens], with special tokens.
        reference: output in FP32 by transformers: [tokens, features], or [1, features] of one output for each text.
        pad: id of padding.
    """

    ids: Array
    types: Array
    reference: Array
    pad: int


def prepare_samples(origin: InputSource, longest: int, pooling: Pooling) -> Artifact:
    """Write an .npz with the token ids and the reference outputs of `origin.texts`. The result is cached.

    Args:
        longest: number of tokens to which texts are truncated.
        pooling: preprocessing of texts.
    """

    def build(path: Path) -> Mapping[str, object]:
        features = tokenize_texts(origin.folder, pooling.texts(origin.texts), longest, random_seed=origin.seed)
        names, run = input_names(origin.folder), origin.reference()
        arrays: dict[str, Array] = {}
        for row, ids in enumerate(features.ids):
            output = np.atleast_2d(run(features.feeds([row], Shape(1, len(ids)), names))[0])
            arrays |= {
                f"{row}/ids": np.asarray(ids, np.int32),
                f"{row}/types": np.asarray(features.types[row], np.int32),
                f"{row}/reference": output.astype(np.float32),
                f"{row}/pad": np.asarray(features.pad),
            }
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        return {"tokens": features.kind, "cut": features.cut}

    key = {**origin.key, "texts": list(origin.texts), "longest": longest, "lower": pooling.lower_case, "form": FORM}
    return origin.cache.get("samples", key, "samples.npz", build, versions_of(PACKAGES))


def read_samples(path: Path) -> list[Sample]:
    """Return the samples in an .npz that `prepare_samples` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        count = sum(name.endswith("/ids") for name in arrays)
        return [
            Sample(arrays[f"{n}/ids"], arrays[f"{n}/types"], arrays[f"{n}/reference"], int(arrays[f"{n}/pad"]))
            for n in range(count)
        ]


def sample_shape(samples: Sequence[Sample], shapes: Sequence[Shape]) -> Shape:
    """Return the smallest built shape that fits all samples, if there is one; otherwise the smallest long enough."""
    longest = max(len(sample.ids) for sample in samples)
    fitting = [shape for shape in shapes if shape.sequence >= longest]
    return min(fitting, key=lambda shape: (shape.batch < len(samples), shape.batch * shape.sequence))


def sample_runs(
    samples: Sequence[Sample],
    shapes: Sequence[Shape],
    names: Sequence[str],
    arrange: Arrange,
    per_token: bool = True,
) -> Iterator[tuple[ArrangedInputs, list[tuple[int, Array]]]]:
    """Yield the batches in which the samples run, each with its samples: their number and their rows in the output.

    All batches have the same shape. Samples that were in a batch already fill the last batch.

    Args:
        shapes: the built shapes.
        names: names of the encoder's inputs.
        per_token: whether the output has a row for each token, and not for each text.
    """
    shape = sample_shape(samples, shapes)
    ids, types = [sample.ids.tolist() for sample in samples], [sample.types.tolist() for sample in samples]
    features = Features("text", ids, types, range(len(samples)), samples[0].pad)
    for start in range(0, len(samples), shape.batch):
        rows = [(start + offset) % len(samples) for offset in range(shape.batch)]
        arranged = arrange(features.feeds(rows, shape, names))
        new = range(min(shape.batch, len(samples) - start))
        places = arranged.places if per_token else np.arange(shape.batch)[:, None]
        yield arranged, [(rows[row], places[row, : len(ids[rows[row]])]) for row in new]


def mean_cosine(outputs: Sequence[Array], references: Sequence[Array]) -> float:
    """Return the mean over samples of the cosine between the means over their rows."""
    cosines = []
    for output, reference in zip(outputs, references, strict=True):
        first, second = output.mean(0, dtype=np.float64), reference.mean(0, dtype=np.float64)
        cosines.append(first @ second / np.sqrt(first @ first * (second @ second)))
    return float(np.mean(cosines))
