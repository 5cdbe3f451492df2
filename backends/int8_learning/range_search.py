"""Search for activation ranges, one after another, by their effect on the outputs of the encoder.

A range up to the largest value of a tensor is seldom the best, because all other values have fewer levels then. For the
first GELU of minilm a fifth of that range gives better outputs. Statistics of the tensor do not show this, because it
depends on the rest of the model. So the search tries smaller ranges for each tensor and keeps the range with which the
outputs of the rounded encoder are closest to FP32 (after Nahshan et al., "Loss Aware Post-training Quantization",
arXiv:1911.07190, which searches all ranges jointly). A different range costs no time when the model runs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from backends.base import Artifact, versions_of
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.int8_learning.distillation_pair import Student, relative_error

logger = logging.getLogger(__name__)

CUT_FACTORS = (0.8, 0.6, 0.45, 0.3, 0.2)
"""Factors that are tried on the current range, in this order."""

SMALLEST_GAIN = 0.002
"""Smallest relative decrease of the loss for which a cut is kept. A smaller decrease may be chance."""

LARGEST_LOSS_FACTOR = 1.1
"""Factor of the loss above which smaller ranges of the tensor are not tried."""

PASSES = 2
"""Number of passes over all ranges. The best value of a range depends on the other ranges."""


def searched_ranges(student: Student) -> Artifact:
    """Make a JSON file of ranges by place in the exported graph. Its notes have the loss before and after the search.

    It reads the calibration keys of `student.quantization`: `samples`, `sequence` and `tokens`.
    """
    sizes = {name: getattr(student.quantization, name) for name in ("samples", "sequence")}

    def build(path: Path) -> Mapping[str, object]:
        ranges, losses = _search(student, sizes)
        path.write_text(json.dumps(ranges, indent=1), encoding="utf-8")
        return {"loss_first": losses[0], "loss_last": losses[-1]}

    settings = {"shares": CUT_FACTORS, "worth": SMALLEST_GAIN, "hopeless": LARGEST_LOSS_FACTOR, "passes": PASSES}
    versions = versions_of(("torch", "transformers"))
    return student.cache.get("searched", {**student.key, **sizes, **settings}, "ranges.json", build, versions)


def _search(student: Student, sizes: Mapping[str, int]) -> tuple[dict[str, float], tuple[float, float]]:
    import torch

    from backends.model.checkpoint import run_encoder

    teacher, encoder, roundings = student.load()
    size = CalibrationSize(**sizes, tokens=student.tokens, lengths=student.lengths)
    batches = calibration_batches(student.folder, student.texts, size, student.seed)

    def loss(ranges: Mapping[str, float]) -> float:
        for place, largest in ranges.items():
            roundings[place].set_range(largest)
        losses = [
            relative_error(run_encoder(encoder, feeds), target, feeds)
            for feeds, target in zip(batches, targets, strict=True)
        ]
        return float(torch.stack(losses).mean())

    with torch.inference_mode():
        targets = [run_encoder(teacher, feeds) for feeds in batches]
        for rounding in roundings.values():
            rounding.observing = True
        for feeds in batches:
            run_encoder(encoder, feeds)
        for rounding in roundings.values():
            rounding.observing = False
        return cut_ranges({place: float(rounding.largest) for place, rounding in roundings.items()}, loss)


def cut_ranges(
    ranges: Mapping[str, float], loss: Callable[[Mapping[str, float]], float]
) -> tuple[dict[str, float], tuple[float, float]]:
    """Cut each of `ranges` if that decreases `loss`. Return the new ranges, and the loss before and after."""
    best = dict(ranges)
    first_loss = best_loss = loss(best)
    for number in range(1, PASSES + 1):
        for count, place in enumerate(ranges, 1):
            full_range = best[place]
            for share in CUT_FACTORS:
                cut = {**best, place: share * full_range}
                cut_loss = loss(cut)
                if cut_loss < (1 - SMALLEST_GAIN) * best_loss:
                    best, best_loss = cut, cut_loss
                elif cut_loss > LARGEST_LOSS_FACTOR * best_loss:
                    break
            progress = (number, PASSES, count, len(ranges), best_loss)
            logger.info("range search: pass %d of %d, range %d of %d, loss %.4f", *progress)
    return best, (first_loss, best_loss)
