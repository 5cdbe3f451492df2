"""Quantization-aware training: an encoder learns to reproduce its FP32 outputs under fake INT8 quantization.

The teacher is the checkpoint in FP32, so training needs texts but no labels. The result is a checkpoint with the same
files, and next to it a file of the learned activation ranges (RANGES). Every backend uses both.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, Artifact, Unsupported, versions_of
from backends.inputs.batches import Tokens
from backends.int8_learning.distillation_pair import Student, relative_error
from backends.model.checkpoint import input_names
from backends.model.checkpoint_files import WEIGHTS, weight_files

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises linearly. After them it falls linearly to 0."""

RANGE_RATE_FACTOR = 100.0
"""Learning rate of the ranges, divided by that of the weights. The parameter of a range is its logarithm."""

TRAINED_RANGES = "trained_ranges.json"
"""JSON file of the largest absolute activation by place in the exported graph, see `round_encoder`."""

BATCH = 32
"""Sequences of a training step."""


def train(student: Student) -> Artifact:
    """Train the student's checkpoint under fake quantization and write a new checkpoint to the cache.

    The notes of the artifact have the number of steps, the first loss and the mean loss of the last tenth of the steps.
    It reads these keys of `student.quantization`: `qat_steps` (of 32 sequences each), `qat_rate` (the highest learning
    rate of AdamW), and `sequence` and `tokens` of the training sequences.

    Raises:
        Unsupported: the weights of the checkpoint are in several files.
    """
    folder = student.folder
    if [path.name for path in weight_files(folder)] != [WEIGHTS]:
        raise Unsupported(f"training needs a checkpoint in one file, {WEIGHTS}; save it again with a larger shard size")
    settings = {name: getattr(student.quantization, name) for name in ("qat_steps", "qat_rate", "sequence")}

    def build(path: Path) -> Mapping[str, object]:
        for file in folder.iterdir():
            if file.is_file() and file.name not in (path.name, "artifact.json"):
                shutil.copy(file, path.with_name(file.name))
        tokens = Tokens.of(folder, student.tokens, student.texts, student.seed)
        batches = _batches(tokens, input_names(folder), settings["qat_steps"], settings["sequence"], student.seed)
        losses, ranges = _train(student, path, batches, settings["qat_steps"], settings["qat_rate"])
        path.with_name(TRAINED_RANGES).write_text(json.dumps(ranges, indent=1), encoding="utf-8")
        tenth = max(1, len(losses) // 10)
        return {"steps": len(losses), "loss_first": losses[0], "loss_last": float(np.mean(losses[-tenth:]))}

    versions = versions_of(("torch", "transformers", "safetensors"))
    return student.cache.get("qat", {**student.key, "form": 2, **settings}, "model.safetensors", build, versions)


def _batches(tokens: Tokens, names: Sequence[str], steps: int, sequence: int, seed: int) -> Iterator[dict[str, Array]]:
    """Yield one batch of sentences for each step, padded to its longest sentence. Each epoch has a new order."""
    generator = np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(steps):
        while len(order) < BATCH:
            order += generator.permutation(len(tokens.sentences)).tolist()
        rows, order = order[:BATCH], order[BATCH:]
        lengths = [min(sequence, tokens.natural_length(row)) for row in rows]
        yield tokens.feeds(lengths, max(lengths), names, rows)


def _train(
    student: Student, path: Path, batches: Iterator[Mapping[str, Array]], steps: int, rate: float
) -> tuple[list[float], dict[str, float]]:
    """Train, write the weights to `path`, and return the loss of each step and the learned range of each place."""
    import torch
    from torch.nn.utils import parametrize

    from backends.model.checkpoint import run_encoder

    torch.manual_seed(student.seed)
    teacher, encoder, roundings = student.load()
    weights, ranges = list(encoder.parameters()), [rounding.logarithm for rounding in roundings.values()]
    groups = [{"params": weights, "lr": rate}, {"params": ranges, "lr": RANGE_RATE_FACTOR * rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    warm = max(1, round(WARM_UP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    losses = []
    for step, feeds in enumerate(batches):
        with torch.no_grad():
            targets = run_encoder(teacher, feeds)
        loss = relative_error(run_encoder(encoder, feeds), targets, feeds)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 20 == 0:
            logger.info("training: step %d of %d, loss %.4f", step, steps, losses[-1])
    for module in encoder.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    _save(student.folder, path, encoder.state_dict())
    return losses, {place: float(rounding.largest.detach()) for place, rounding in roundings.items()}


def _save(folder: Path, path: Path, trained: Mapping[str, torch.Tensor]) -> None:
    """Write the checkpoint's file with new encoder weights. Heads, tensor names and types do not change."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(folder / path.name, "pt") as stored:
        tensors, metadata = {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()  # noqa: SIM118
    for name, value in trained.items():
        keys = [key for key in tensors if key == name or key.endswith(f".{name}")]
        if keys:
            tensors[keys[0]] = value.cpu().to(tensors[keys[0]].dtype).contiguous()
    save_file(tensors, path, metadata=metadata)
