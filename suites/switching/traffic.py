"""Traces of requests. A request is a shape.

A trace comes from seeded runs of equal shapes, from a distribution of lengths, or from a file of the user.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from backends.inputs.lengths import Lengths
from suites.schema.refusals import Refused, numbered_lines, shortened
from suites.switching.result import Size

SWITCH = "switch="

BLOCKS = 10
"""Blocks of a trace. Each block is balanced. Blocks are served in order until the time is over, and are resampled."""

MIN_SWITCHES = 100
"""Smallest number of changes of shape in a trace. With fewer, the tail of its latencies would have too few samples."""

MAX_REQUESTS = 100_000
"""Largest number of requests in a trace."""


def switch_trace(switch: float) -> str:
    """Return the name of a trace with this switching probability. `switch_of` is the inverse."""
    return f"{SWITCH}{switch:g}"


def switch_of(name: str) -> float | None:
    """Return the switching probability in the name of a trace; None for another trace."""
    if not name.startswith(SWITCH):
        return None
    try:
        return float(name.removeprefix(SWITCH))
    except ValueError:  # a file of the user may have such a name
        return None


def blocks_of_runs(count: int, switch: float, shapes: int, seed: int) -> list[list[list[int]]]:
    """Return BLOCKS blocks, each the result of `runs`.

    Args:
        count: requests of all blocks together; there are more where `count` requests would have too few changes.

    Raises:
        Refused: more than MOST requests are necessary to reach every shape in each block.
    """
    reaching = math.ceil((shapes - 1) / switch) + 1 if switch else shapes
    count = max(count, math.ceil(MIN_SWITCHES / switch) + 1 if switch and shapes > 1 else 0)
    size = max(math.ceil(count / BLOCKS), reaching)
    if size * BLOCKS > MAX_REQUESTS:
        raise Refused(
            f"switching.switch={switch:g} needs {size * BLOCKS} requests to reach {shapes} shapes {BLOCKS} times and "
            f"to switch {MIN_SWITCHES} times; at most {MAX_REQUESTS} are allowed: use a larger probability"
        )
    return [trace_of_runs(size, switch, shapes, seed + 1_000_003 * block) for block in range(BLOCKS)]


def split_blocks(trace: Sequence[int]) -> list[list[list[int]]]:
    """Split a trace into blocks of one stretch each; a short trace is one block."""
    size = max(20, math.ceil(len(trace) / BLOCKS))
    return [[list(trace[start : start + size])] for start in range(0, len(trace), size)]


def trace_of_runs(count: int, switch: float, shapes: int, seed: int) -> list[list[int]]:
    """Return stretches of shapes by index. Every shape occurs equally often.

    There is one stretch, or one for each shape if there are no changes. A random walk would reach some shapes more
    often than others; these traces differ only in their changes.

    Args:
        count: requests; there are more where `count` requests would not reach every shape.
        switch: probability that a request has another shape than the request before.
        shapes: number of shapes.
    """
    if switch == 0 or shapes == 1:
        return [[shape] * _share(count, shapes, shape) for shape in range(shapes)]
    generator = np.random.default_rng([seed, round(switch * 1e6)])
    count = max(count, math.ceil((shapes - 1) / switch) + 1)
    order = _alternating(round(switch * (count - 1)) + 1, shapes, generator)
    lengths = {}
    for rank, (shape, parts) in enumerate(Counter(order).most_common()):
        total = _share(count, shapes, rank)
        # Every cut is equally likely, so the runs are as long as those of a Markov chain.
        cuts = np.sort(generator.choice(np.arange(1, total), parts - 1, replace=False))
        lengths[shape] = np.diff([0, *cuts, total]).tolist()
    return [[shape for run in order for shape in [run] * lengths[run].pop()]]


def _share(count: int, parts: int, index: int) -> int:
    """Return the size of part `index` of `parts` equal parts of `count`; the first parts may be larger by one."""
    return len(range(index, count, parts))


def _alternating(count: int, shapes: int, generator: np.random.Generator) -> list[int]:
    """Return random permutations of all shapes, one after another, cut to `count`; no shape follows itself."""
    order: list[int] = []
    while len(order) < count:
        following = generator.permutation(shapes).tolist()
        order += following[1:] + following[:1] if order and order[-1] == following[0] else following
    return order[:count]


def draw_trace(count: int, lengths: Lengths, shapes: Sequence[Size], seed: int) -> list[int]:
    """Draw a trace of shapes by index: a random batch size, that many lengths, and the smallest shape that fits them.

    Args:
        lengths: a distribution that needs no tokenizer.
    """
    from backends.base import Shape
    from backends.inputs.batches import Tokens, draw_lengths

    generator = np.random.default_rng([seed, 1])
    batches, longest = sorted({batch for batch, _ in shapes}), max(sequence for _, sequence in shapes)
    no_tokens = Tokens("random", ((0,),), (0,), (0,), 0)
    trace = []
    for _ in range(count):
        batch = int(generator.choice(batches))
        drawn_lengths, _ = draw_lengths(lengths, Shape(batch, longest), no_tokens, int(generator.integers(1 << 30)))
        trace.append(fitting_shape((batch, max(drawn_lengths)), shapes))
    return trace


def read_trace(path: str) -> list[tuple[int, Size]]:
    """Read a trace file: one request per line, a batch and a sequence length.

    Returns:
        The number of the line and the shape, for each request.

    Raises:
        Refused: a line is malformed (the message names the file and the line), or there are too many requests.
    """
    trace = []
    for number, line in numbered_lines("the trace", path):
        words = line.replace(",", " ").split()
        if len(words) != 2 or not all(re.fullmatch(r"0*[1-9][0-9]{0,8}", word) for word in words):
            raise Refused(
                f"{path}, line {number}: {shortened(line)!r} is not a batch and a sequence length; write e.g. 8 128"
            )
        trace.append((number, (int(words[0]), int(words[1]))))
    if len(trace) > MAX_REQUESTS:
        raise Refused(f"{path} has {len(trace)} requests; at most {MAX_REQUESTS} are allowed: shorten the file")
    return trace


def trace_from_file(path: str, shapes: Sequence[Size]) -> list[int]:
    """Read a trace file and return the index of the shape that runs each request.

    Raises:
        Refused: a line is malformed or fits into no shape; the message names the file and the line.
    """
    trace = []
    for number, request in read_trace(path):
        try:
            trace.append(fitting_shape(request, shapes))
        except ValueError as error:
            raise Refused(f"{path}, line {number}: {error}") from None
    return trace


def fitting_shape(request: Size, shapes: Sequence[Size]) -> int:
    """Return the index of the shape with the fewest tokens that `request` fits into.

    Raises:
        ValueError: it fits into no shape.
    """
    from backends.base import Shape
    from backends.inputs import request_inputs

    return request_inputs.fitting_shape(Shape.parse(request), [*map(Shape.parse, shapes)])


def euler_circuit(nodes: int, repeats: int, seed: int) -> list[int]:
    """Return a random closed walk that uses each ordered pair of nodes `repeats` times, also a node with itself.

    It is an Euler circuit, made with Hierholzer's algorithm.
    """
    generator = np.random.default_rng(seed)
    unused_edges = [generator.permutation(np.tile(np.arange(nodes), repeats)).tolist() for _ in range(nodes)]
    path, circuit = [0], []
    while path:
        if unused_edges[path[-1]]:
            path.append(unused_edges[path[-1]].pop())
        else:
            circuit.append(path.pop())
    return circuit[::-1]
