"""Inputs of requests: several sets per shape, with lengths as in requests that run at this shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from backends.base import Array, Artifact, Feeds, Shape
from backends.inputs.batches import InputSource, Tokens, draw_lengths, reference_rows
from backends.inputs.lengths import Lengths
from backends.model.checkpoint import input_names

SETS = 8
"""Number of sets per shape. Requests use them in turn."""

REFERENCES = 2
"""Number of sets with FP32 reference outputs: the first ones."""

TRIES = 400
"""Draws per set. If the distribution rarely gives a shape, its lengths are constructed instead."""

FILLER = 2
"""Number of tokens of a row that fills a batch up to a larger one."""

NOTHING = Tokens("random", ((0,),), (0,), (0,), 0)


def fitting_shape(requested: Shape, shapes: Sequence[Shape]) -> int:
    """Return the index of the shape with the fewest tokens that fits `requested`.

    Raises:
        ValueError: no shape fits.
    """
    fitting = [
        (shape.batch * shape.sequence, index)
        for index, shape in enumerate(shapes)
        if shape.batch >= requested.batch and shape.sequence >= requested.sequence
    ]
    if not fitting:
        raise ValueError(f"no shape fits {requested}; the shapes are {', '.join(map(str, shapes))}")
    return min(fitting)[1]


def request_lengths(
    lengths: Lengths, requested: Sequence[Shape], index: int, count: int, seed: int
) -> tuple[list[list[int]], bool]:
    """Return the sequence lengths of `count` requests that run at `requested[index]`.

    A request runs at the smallest shape of `requested` that fits it.

    Args:
        lengths: a distribution that needs no tokenizer; see draw_lengths in backends/inputs/batches.py.

    Returns:
        The number of tokens of each sequence, by request. Also whether some of the lengths were constructed, because
        the distribution rarely gives this shape.
    """
    shape, longest = requested[index], max(candidate.sequence for candidate in requested)
    if lengths.distribution == "full":
        return [[shape.sequence] * shape.batch for _ in range(count)], False
    generator = np.random.default_rng([seed, shape.batch, shape.sequence])
    sets: list[list[int]] = []
    for _ in range(TRIES * count):
        drawn, _ = draw_lengths(lengths, Shape(shape.batch, longest), NOTHING, int(generator.integers(1 << 30)))
        if fitting_shape(Shape(shape.batch, max(drawn)), requested) == index:
            sets.append(drawn)
        if len(sets) == count:
            return sets, False
    shorter = [other.sequence for other in requested if other.batch >= shape.batch and other.sequence < shape.sequence]
    while len(sets) < count:
        drawn, _ = draw_lengths(lengths, shape, NOTHING, int(generator.integers(1 << 30)))
        drawn[0] = int(generator.integers(max(shorter, default=1) + 1, shape.sequence + 1))
        sets.append(drawn)
    return sets, True


def prepare_request_sets(origin: InputSource, requested: Sequence[Shape], built: Sequence[Shape]) -> Artifact:
    """Write an .npz of feeds [batch, sequence] for each requested shape, padded to the smallest built shape that fits.

    Names are "<index in requested>/<number of the set>/<array>". The sets 0 to SETS - 1 are for requests, the sets SETS
    to 2 * SETS - 1 are for preparation. The first REFERENCES sets have `reference` [rows, sequence, hidden] FP32 and
    its `rows`. The notes give, by built shape, the number of tokens of each set and their median. They also list the
    requested shapes with constructed lengths.
    """

    def build(path: Path) -> Mapping[str, object]:
        tokens, names, reference = origin.tokens(), input_names(origin.folder), origin.reference()
        arrays: dict[str, Array] = {}
        counted: dict[str, list[int]] = {}
        constructed: list[str] = []
        for index, shape in enumerate(requested):
            run_shape = built[fitting_shape(shape, built)]
            sets, made_up = request_lengths(origin.lengths, requested, index, 2 * SETS, origin.seed)
            constructed += [str(shape)] if made_up else []
            for number, row_lengths in enumerate(sets):
                filled = row_lengths + [FILLER] * (run_shape.batch - len(row_lengths))
                counted.setdefault(str(run_shape), []).append(sum(filled))
                starts = [number * len(filled) + row for row in range(len(filled))]
                feeds = tokens.feeds(filled, run_shape.sequence, names, starts)
                arrays |= {f"{index}/{number}/{name}": array for name, array in feeds.items()}
                if number < REFERENCES:
                    rows = reference_rows(len(row_lengths))
                    arrays |= {f"{index}/{number}/reference": reference({name: feeds[name][rows] for name in names})}
                    arrays |= {f"{index}/{number}/rows": rows}
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        shapes = {name: {"tokens": int(np.median(sums)), "sets": sums} for name, sums in counted.items()}
        return {"tokens": tokens.kind, "made_up": constructed, "shapes": shapes}

    by_shape = {"asked": [str(shape) for shape in requested], "held": [str(shape) for shape in built]}
    return origin.cached("sets.npz", {**by_shape, "sets": [SETS, REFERENCES, TRIES]}, build)


def read_sets(arrays: Mapping[str, Array], index: int) -> Iterator[tuple[Feeds, Feeds]]:
    """Yield the feeds of each set of a requested shape, and `reference` and `rows` if the set has them."""
    for number in range(2 * SETS):
        prefix = f"{index}/{number}/"
        feeds = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
        reference: Feeds = {name: feeds.pop(name) for name in ("reference", "rows") if name in feeds}
        yield feeds, reference
