"""Seeded traces of requests, each a shape: runs of equal shapes, draws from a distribution of lengths, a user's."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from suites.checks import Refused, numbered_lines, shortened

Size = tuple[int, int]
"""Batch and sequence."""

BLOCKS = 10
"""Parts of a trace that are balanced each: served one after another for as long as time is left, and resampled."""

SWITCHES = 100
"""Changes of shape that a trace has at least, or the tail of its latencies would rest on a handful."""

MOST = 100_000
"""Requests of a trace, at most."""


def blocks_of_runs(count: int, switch: float, shapes: int, seed: int) -> list[list[list[int]]]:
    """Blocks as `runs` gives them, together of `count` requests, and of more where fewer would not switch often enough.

    Raises:
        Refused: to reach every shape in each block would take too many.
    """
    reaching = math.ceil((shapes - 1) / switch) + 1 if switch else shapes
    count = max(count, math.ceil(SWITCHES / switch) + 1 if switch and shapes > 1 else 0)
    size = max(math.ceil(count / BLOCKS), reaching)
    if size * BLOCKS > MOST:
        raise Refused(
            f"switching.switch={switch:g} takes {size * BLOCKS} requests to reach {shapes} shapes {BLOCKS} times and "
            f"to switch {SWITCHES} times; at most {MOST} are served: ask for a larger probability"
        )
    return [runs(size, switch, shapes, seed + 1_000_003 * block) for block in range(BLOCKS)]


def cut(trace: Sequence[int]) -> list[list[list[int]]]:
    """A trace in blocks of a stretch each; one that is short in one."""
    size = max(20, math.ceil(len(trace) / BLOCKS))
    return [[list(trace[start : start + size])] for start in range(0, len(trace), size)]


def runs(count: int, switch: float, shapes: int, seed: int) -> list[list[int]]:
    """Stretches of shapes by index, every shape as often as every other, in which a request has another shape than the
    one before with probability `switch`: one stretch, or without changes one for each shape.

    A random walk would have the shapes that it happens to reach; these traces differ in nothing but their changes.

    Args:
        count: of requests; there are more where so few would not reach every shape.
    """
    if switch == 0 or shapes == 1:
        return [[shape] * _share(count, shapes, shape) for shape in range(shapes)]
    generator = np.random.default_rng([seed, round(switch * 1e6)])
    count = max(count, math.ceil((shapes - 1) / switch) + 1)
    order = _alternating(round(switch * (count - 1)) + 1, shapes, generator)
    lengths = {}
    for rank, (shape, parts) in enumerate(Counter(order).most_common()):
        total = _share(count, shapes, rank)
        # Cut anywhere with equal probability: as long as the runs of a chain that changes by chance.
        cuts = np.sort(generator.choice(np.arange(1, total), parts - 1, replace=False))
        lengths[shape] = np.diff([0, *cuts, total]).tolist()
    return [[shape for run in order for shape in [run] * lengths[run].pop()]]


def _share(count: int, parts: int, index: int) -> int:
    """Of `count` in `parts` equal parts, the first ones larger by one where they must be."""
    return len(range(index, count, parts))


def _alternating(count: int, shapes: int, generator: np.random.Generator) -> list[int]:
    """All shapes in random order, again and again, none after itself."""
    order: list[int] = []
    while len(order) < count:
        following = generator.permutation(shapes).tolist()
        order += following[1:] + following[:1] if order and order[-1] == following[0] else following
    return order[:count]


def drawn(count: int, lengths: Mapping[str, Any], shapes: Sequence[Size], seed: int) -> list[int]:
    """Shapes by index: a batch size at random, as many lengths from the distribution, and the shape that holds them.

    Args:
        lengths: what suites/options.py's lengths_of gives, of a distribution that needs no tokenizer.
    """
    from backends.base import Shape
    from backends.inputs import Tokens, draw_lengths

    generator = np.random.default_rng([seed, 1])
    batches, longest = sorted({batch for batch, _ in shapes}), max(sequence for _, sequence in shapes)
    nothing = Tokens("random", ((0,),), (0,), (0,), 0)
    trace = []
    for _ in range(count):
        batch = int(generator.choice(batches))
        found, _ = draw_lengths(lengths, Shape(batch, longest), nothing, int(generator.integers(1 << 30)))
        trace.append(smallest((batch, max(found)), shapes))
    return trace


def read_trace(path: str) -> list[tuple[int, Size]]:
    """The requests of a file with a batch and a sequence length a line, each with the number of its line.

    Raises:
        Refused: a line is malformed; the message has the file and the line.
    """
    trace = []
    for number, line in numbered_lines("the trace", path):
        words = line.replace(",", " ").split()
        if len(words) != 2 or not all(re.fullmatch(r"0*[1-9][0-9]{0,8}", word) for word in words):
            raise Refused(
                f"{path}, line {number}: {shortened(line)!r} is not a batch and a sequence length, e.g. 8 128"
            )
        trace.append((number, (int(words[0]), int(words[1]))))
    if len(trace) > MOST:
        raise Refused(f"{path} has {len(trace)} requests; at most {MOST} are served: cut it")
    return trace


def from_file(path: str, shapes: Sequence[Size]) -> list[int]:
    """Shapes by index, of a file as `read_trace` reads it.

    Raises:
        Refused: a line is malformed or fits no shape; the message has the file and the line.
    """
    trace = []
    for number, wanted in read_trace(path):
        try:
            trace.append(smallest(wanted, shapes))
        except ValueError as error:
            raise Refused(f"{path}, line {number}: {error}") from None
    return trace


def smallest(wanted: Size, shapes: Sequence[Size]) -> int:
    """The index of the shape with the fewest tokens that holds `wanted`.

    Raises:
        ValueError: none does.
    """
    from backends import input_sets
    from backends.base import Shape

    return input_sets.smallest(Shape(*wanted), [Shape(*shape) for shape in shapes])


def walk(nodes: int, repeats: int, seed: int) -> list[int]:
    """A random closed walk that takes each ordered pair of nodes, a node with itself too, `repeats` times (an Euler
    circuit, by Hierholzer's algorithm)."""
    generator = np.random.default_rng(seed)
    ahead = [generator.permutation(np.tile(np.arange(nodes), repeats)).tolist() for _ in range(nodes)]
    path, circuit = [0], []
    while path:
        if ahead[path[-1]]:
            path.append(ahead[path[-1]].pop())
        else:
            circuit.append(path.pop())
    return circuit[::-1]
