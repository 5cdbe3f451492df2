"""The distribution of sequence lengths that the keys `lengths.*` describe."""

from __future__ import annotations

import re
from dataclasses import replace

from backends.inputs.lengths import Lengths
from suites.schema.config import RunConfig
from suites.schema.enums import Distribution
from suites.schema.refusals import Refused, at_least, numbered_lines, positive, shortened
from suites.suite import load_suite


def resolve_lengths(config: RunConfig) -> Lengths:
    """Return the distribution with its own parameters only. Its settings are part of the cell.

    Raises:
        Refused: a value is out of range, or the file of lengths has an invalid line.
    """
    given, kind = config.lengths, config.lengths.distribution
    passes, multiple = _passes(config)
    low = at_least("lengths.low", given.low, 2)
    lengths = Lengths(kind.name, given.tokens.name, low, passes=passes, multiple=multiple)
    if kind is Distribution.lognormal:
        mean, sigma = positive("lengths.mean", given.mean), positive("lengths.sigma", given.sigma)
        return replace(lengths, mean=mean, sigma=sigma)
    if kind is Distribution.histogram:
        values, counts = given.values, given.counts
        if not values or len(values) != len(counts) or min(values) < 2 or min(counts) < 0 or not sum(counts):
            raise Refused(
                "lengths.values and lengths.counts must be lists of the same size, with lengths of at least 2 and "
                "counts of at least 0 that are not all 0"
            )
        return replace(lengths, values=tuple(values), counts=tuple(counts))
    if kind is Distribution.file:
        return replace(lengths, values=_lengths_in(given.path))
    return lengths


def _passes(config: RunConfig) -> tuple[int, int]:
    """Return the number of passes over a batch, and the multiple of tokens that each is padded to."""
    passes = at_least("lengths.passes", config.lengths.passes, 1)
    multiple = at_least("lengths.multiple", config.lengths.multiple, 1)
    if passes == 1:
        return 1, 1
    if not load_suite(config.suite.name).splits_batches:
        raise Refused(f"lengths.passes is for suite=latency, not for suite={config.suite.name}")
    if config.lengths.distribution is Distribution.full:
        raise Refused("lengths.passes sorts sequences by length, so give different lengths too, e.g. lengths=stsb")
    for batch in config.batch:
        if batch % passes:
            raise Refused(f"lengths.passes={passes} does not divide batch={batch} into equal parts")
    return passes, multiple


def _lengths_in(path: str) -> tuple[int, ...]:
    values = []
    for number, line in numbered_lines("lengths.path", path):
        if not re.fullmatch(r"[0-9]{1,9}", line) or int(line) < 2:
            raise Refused(f"{path}, line {number}: {shortened(line)!r} is not a length of 2 or more tokens")
        values.append(int(line))
    return tuple(values)
