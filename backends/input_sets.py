"""Inputs of requests: for each shape several sets whose lengths are those that bring a request to that shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Artifact, Feeds, Shape
from backends.checkpoint import input_names
from backends.inputs import InputSource, Tokens, draw_lengths, reference_rows

SETS = 8
"""Sets of a shape that requests bring in turn."""

REFERENCES = 2
"""The first of them, which have FP32 outputs to be held against."""

TRIES = 400
"""Draws for each set before lengths that nearly never come are made up."""

FILLER = 2
"""Tokens of a row that fills a batch up to a larger one."""

NOTHING = Tokens("random", ((0,),), (0,), (0,), 0)


def smallest(wanted: Shape, shapes: Sequence[Shape]) -> int:
    """The index of the shape with the fewest tokens that holds `wanted`.

    Raises:
        ValueError: none does.
    """
    fitting = [
        (shape.batch * shape.sequence, index)
        for index, shape in enumerate(shapes)
        if shape.batch >= wanted.batch and shape.sequence >= wanted.sequence
    ]
    if not fitting:
        raise ValueError(f"no shape holds {wanted}; there are {', '.join(map(str, shapes))}")
    return min(fitting)[1]


def lengths_of_sets(
    lengths: Mapping[str, Any], asked: Sequence[Shape], index: int, count: int, seed: int
) -> tuple[list[list[int]], bool]:
    """`count` times the tokens in each sequence of a request that runs at `asked[index]`, because no smaller shape of
    `asked` holds it; and whether they had to be made up, because the distribution brings next to none there.

    Args:
        lengths: a distribution that needs no tokenizer, as backends/inputs.py's draw_lengths takes it.
    """
    shape, longest = asked[index], max(one.sequence for one in asked)
    if lengths["distribution"] == "full":
        return [[shape.sequence] * shape.batch for _ in range(count)], False
    generator = np.random.default_rng([seed, shape.batch, shape.sequence])
    found: list[list[int]] = []
    for _ in range(TRIES * count):
        drawn, _ = draw_lengths(lengths, Shape(shape.batch, longest), NOTHING, int(generator.integers(1 << 30)))
        if smallest(Shape(shape.batch, max(drawn)), asked) == index:
            found.append(drawn)
        if len(found) == count:
            return found, False
    fitting = [one.sequence for one in asked if one.batch >= shape.batch and one.sequence < shape.sequence]
    while len(found) < count:
        drawn, _ = draw_lengths(lengths, shape, NOTHING, int(generator.integers(1 << 30)))
        drawn[0] = int(generator.integers(max(fitting, default=1) + 1, shape.sequence + 1))
        found.append(drawn)
    return found, True


def prepare_sets(origin: InputSource, asked: Sequence[Shape], held: Sequence[Shape]) -> Artifact:
    """An .npz of feeds [batch, sequence] for each shape that is asked for, padded up to the one of `held` that runs it.

    Names are "<index in asked>/<number of the set>/<array>". Of numbers below SETS requests are made, of as many after
    them what is prepared beforehand; the first REFERENCES have `reference` [rows, sequence, hidden] FP32 and the `rows`
    it belongs to. The notes have by shape that is run the tokens of each set and their median, and the shapes whose
    lengths were made up.
    """

    def build(path: Path) -> Mapping[str, Any]:
        tokens, names, reference = origin.tokens(), input_names(origin.folder), origin.reference()
        arrays: dict[str, Array] = {}
        counted: dict[str, list[int]] = {}
        notes: dict[str, Any] = {"tokens": tokens.kind, "made_up": []}
        for index, shape in enumerate(asked):
            runs = held[smallest(shape, held)]
            sets, made_up = lengths_of_sets(origin.lengths, asked, index, 2 * SETS, origin.seed)
            notes["made_up"] += [str(shape)] if made_up else []
            for number, one in enumerate(sets):
                filled = one + [FILLER] * (runs.batch - len(one))
                counted.setdefault(str(runs), []).append(sum(filled))
                starts = [number * len(filled) + row for row in range(len(filled))]
                feeds = tokens.feeds(filled, runs.sequence, names, starts)
                arrays |= {f"{index}/{number}/{name}": array for name, array in feeds.items()}
                if number < REFERENCES:
                    rows = reference_rows(len(one))
                    arrays |= {f"{index}/{number}/reference": reference({name: feeds[name][rows] for name in names})}
                    arrays |= {f"{index}/{number}/rows": rows}
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        shapes = {name: {"tokens": int(np.median(sums)), "sets": sums} for name, sums in counted.items()}
        return {**notes, "shapes": shapes}

    by_shape = {"asked": [str(shape) for shape in asked], "held": [str(shape) for shape in held]}
    return origin.cached("sets.npz", {**by_shape, "sets": [SETS, REFERENCES, TRIES]}, build)


def read_sets(arrays: Mapping[str, Array], index: int) -> Iterator[tuple[Feeds, Feeds]]:
    """Of one shape asked for, each set in turn: feeds, and `reference` and `rows` where it has them."""
    for number in range(2 * SETS):
        start = f"{index}/{number}/"
        named = {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}
        known: Feeds = {name: named.pop(name) for name in ("reference", "rows") if name in named}
        yield named, known
