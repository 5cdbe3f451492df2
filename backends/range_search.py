"""Ranges of activations chosen, one after another, by what they do to an encoder's outputs.

The largest value that a tensor ever holds is seldom worth the levels that it takes from all others: of minilm's first
GELU a fifth of it serves the outputs better. No statistic of the tensor alone says so, for it is in what the rest of
the model makes of it; so each range is tried cut down, and what brings the rounded encoder's outputs closest to FP32's
is kept (after Nahshan et al., "Loss Aware Post-training Quantization", arXiv:1911.07190, which searches all of them
jointly). A range costs nothing when the model runs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backends.base import Artifact, versions_of
from backends.inputs import calibration_batches
from backends.student import Student, distance

logger = logging.getLogger(__name__)

SHARES = (0.8, 0.6, 0.45, 0.3, 0.2)
"""Of the range so far, in the order in which they are tried."""

WORTH = 0.002
"""Share of the loss that a cut must save, so that a range is not cut for the luck of a few roundings."""

HOPELESS = 1.1
"""A cut that makes the loss so many times as large is not followed by deeper ones."""

PASSES = 2
"""Over all ranges: what is best for one depends on the others."""


def searched_ranges(student: Student) -> Artifact:
    """A JSON file of ranges by place in the exported graph; its notes have the loss before and after.

    Of the student's `quantization` it reads what calibration reads: `samples`, `sequence` and `tokens`.
    """
    sizes = {name: student.quantization[name] for name in ("samples", "sequence")}

    def build(path: Path) -> Mapping[str, Any]:
        ranges, losses = _search(student, sizes)
        path.write_text(json.dumps(ranges, indent=1), encoding="utf-8")
        return {"loss_first": losses[0], "loss_last": losses[-1]}

    form = {"shares": SHARES, "worth": WORTH, "hopeless": HOPELESS, "passes": PASSES}
    versions = versions_of(("torch", "transformers"))
    return student.cache.get("searched", {**student.key, **sizes, **form}, "ranges.json", build, versions)


def _search(student: Student, sizes: Mapping[str, int]) -> tuple[dict[str, float], tuple[float, float]]:
    import torch

    from backends.checkpoint import run_encoder

    teacher, rounded, roundings = student.load()
    batches = calibration_batches(student.folder, student.texts, seed=student.seed, tokens=student.tokens, **sizes)

    def loss(ranges: Mapping[str, float]) -> float:
        for place, largest in ranges.items():
            roundings[place].reach(largest)
        found = [
            distance(run_encoder(rounded, feeds), goal, feeds) for feeds, goal in zip(batches, wanted, strict=True)
        ]
        return float(torch.stack(found).mean())

    with torch.inference_mode():
        wanted = [run_encoder(teacher, feeds) for feeds in batches]
        for rounding in roundings.values():
            rounding.watching = True
        for feeds in batches:
            run_encoder(rounded, feeds)
        for rounding in roundings.values():
            rounding.watching = False
        return search({place: float(rounding.largest) for place, rounding in roundings.items()}, loss)


def search(
    ranges: Mapping[str, float], loss: Callable[[Mapping[str, float]], float]
) -> tuple[dict[str, float], tuple[float, float]]:
    """`ranges` cut where that makes `loss` smaller, and the loss before and after."""
    found = dict(ranges)
    first = least = loss(found)
    for number in range(PASSES):
        for count, place in enumerate(ranges, 1):
            whole = found[place]
            for share in SHARES:
                cut = {**found, place: share * whole}
                now = loss(cut)
                if now < (1 - WORTH) * least:
                    found, least = cut, now
                elif now > HOPELESS * least:
                    break
            logger.info(
                "searching ranges, pass %d of %d, %d of %d, loss %.4f", number + 1, PASSES, count, len(ranges), least
            )
    return found, (first, least)
