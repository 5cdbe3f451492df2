"""A task's texts as batches of the shapes that a cell asks for, with what FP32 makes of each text.

Texts are shuffled and batch sizes drawn, so that one text after another has other neighbours and other padding: what
leaks from a neighbour or from padding shows in its output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Artifact, Shape, versions_of
from backends.checkpoint import input_names
from backends.features import NOWHERE, Features, Text, featurize
from backends.inputs import PACKAGES, InputSource
from backends.readout import READOUTS


def prepare_evaluation(
    origin: InputSource, shapes: Sequence[Shape], texts: Sequence[Text], readout: str, random: bool = False,
    most: int = 0,
) -> Artifact:  # fmt: skip
    """An .npz of `readout` (a name from backends/readout.py), `reference` [rows, ...] FP32 as it reads them,
    "head/<name>" where it needs a head, and for each batch "<number>/<input>" int32 [batch, sequence] and
    "<number>/rows", the rows in it; rows beyond those only fill the batch. "0/hidden" is FP32's
    [rows, sequence, hidden] of the first batch. Rows are texts, or of readout "spans" windows on them: then `text`
    [rows] and `offsets` [rows, sequence, 2] say whose, and where in the context each token stands.

    Notes say how many texts were cut to the longest sequence asked for.

    Args:
        origin: the checkpoint; its own texts and lengths are not used.
        random: whether random ids will do for a checkpoint without a tokenizer: for drift, not for a task's figure.
        most: tokens at which the checkpoint itself cuts texts; 0 for none.

    Raises:
        Unsupported: the checkpoint lacks the head.
        Unavailable: it lacks the tokenizer that the texts need.
    """

    folder, seed = origin.folder, origin.seed

    def build(path: Path) -> Mapping[str, Any]:
        from backends.heads import span_head

        head = span_head(folder) if readout == "spans" else {}
        longest = max(shape.sequence for shape in shapes)
        kept = min(longest, most or longest)
        names, features = input_names(folder), featurize(folder, texts, kept, seed, readout == "spans", random)
        run = origin.reference()
        arrays = {f"head/{name}": array for name, array in head.items()}
        for number, (rows, shape) in enumerate(batches([len(row) for row in features.ids], shapes, seed)):
            feeds = features.feeds([*rows, *rows[:1] * (shape.batch - len(rows))], shape, names)
            hidden = run(feeds)
            if not number:
                size = (2, longest) if readout == "spans" else hidden.shape[-1:]
                reference = np.zeros((len(features.ids), *size), np.float32)
                arrays["0/hidden"] = hidden[: len(rows)]
            put(reference, rows, READOUTS[readout](hidden, feeds["attention_mask"], head))
            arrays |= {f"{number}/{name}": array for name, array in feeds.items()}
            arrays[f"{number}/rows"] = np.asarray(rows)
        arrays |= _windows(features, longest) if readout == "spans" else {}
        np.savez(path, readout=np.asarray(readout), reference=reference, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        return {"tokens": features.kind, "texts": len(texts), "cut": features.cut}

    by_shape = [str(shape) for shape in shapes]
    key = {**origin.key, "shapes": by_shape, "texts": list(texts), "readout": readout, "form": 2}
    key |= {"most": most} if most else {}
    return origin.cache.get("evaluation", key, "inputs.npz", build, versions_of(PACKAGES))


def put(found: Array, rows: Sequence[int] | Array, read: Array) -> None:
    """What was read of a batch into the rows of `found` that it is; what is shorter leaves the rest of a row alone."""
    kept = read[: len(rows)]
    found[(np.asarray(rows), ..., slice(kept.shape[-1]))] = kept


def batches(lengths: Sequence[int], shapes: Sequence[Shape], seed: int) -> Iterator[tuple[list[int], Shape]]:
    """Rows by index and the shape that holds them: the shortest sequence asked for that is long enough."""
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
    offsets = np.full((len(features.ids), longest, 2), NOWHERE, np.int32)
    for row, places in enumerate(features.offsets):
        offsets[row, : len(places)] = places
    return {"text": np.asarray(features.texts, np.int32), "offsets": offsets}
