"""Quantization-aware training: an encoder learns to give its FP32 outputs while its tensors are rounded to INT8.

The teacher is the checkpoint itself, so no labels are needed: texts are enough. What comes out is a checkpoint like the
one that went in, and beside it the ranges of activations that were learned with it (RANGES), for every path to take.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Artifact, Unsupported, versions_of
from backends.checkpoint import input_names
from backends.checkpoint_files import WEIGHTS, weight_files
from backends.inputs import Tokens
from backends.student import Student, distance

logger = logging.getLogger(__name__)

WARM_UP = 0.1
"""Share of the steps over which the rate rises; from there it falls to 0."""

FASTER = 100.0
"""How many times the weights' rate the ranges, which are logarithms, are learned at."""

RANGES = "trained_ranges.json"
"""Largest absolute activation by place in the exported graph, see backends/rounding.py's round_encoder."""

BATCH = 32


def train(student: Student) -> Artifact:
    """A checkpoint in a folder of its own, trained under fake quantization; its notes have the loss at both ends.

    Of the student's `quantization` it reads `qat_steps` (of 32 sequences), `qat_rate` (of AdamW, at its highest), and
    `sequence` and `tokens` of the sequences.
    """
    folder = student.folder
    if [path.name for path in weight_files(folder)] != [WEIGHTS]:
        raise Unsupported(f"training needs a checkpoint in one file, {WEIGHTS}; save it again with a larger shard size")
    chosen = {name: student.quantization[name] for name in ("qat_steps", "qat_rate", "sequence")}

    def build(path: Path) -> Mapping[str, Any]:
        for file in folder.iterdir():
            if file.is_file() and file.name not in (path.name, "artifact.json"):
                shutil.copy(file, path.with_name(file.name))
        tokens = Tokens.of(folder, student.tokens, student.texts, student.seed)
        batches = _batches(tokens, input_names(folder), chosen["qat_steps"], chosen["sequence"], student.seed)
        losses, ranges = _train(student, path, batches, chosen["qat_steps"], chosen["qat_rate"])
        path.with_name(RANGES).write_text(json.dumps(ranges, indent=1), encoding="utf-8")
        tenth = max(1, len(losses) // 10)
        return {"steps": len(losses), "loss_first": losses[0], "loss_last": float(np.mean(losses[-tenth:]))}

    versions = versions_of(("torch", "transformers", "safetensors"))
    return student.cache.get("qat", {**student.key, "form": 2, **chosen}, "model.safetensors", build, versions)


def _batches(tokens: Tokens, names: Sequence[str], steps: int, sequence: int, seed: int) -> Iterator[dict[str, Array]]:
    """A batch a step of sentences, in a new order each time round; each batch as long as its longest sentence."""
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
    """Write the trained weights to `path`; gives the loss of each step, and the ranges."""
    import torch
    from torch.nn.utils import parametrize

    from backends.checkpoint import run_encoder

    torch.manual_seed(student.seed)
    teacher, learner, roundings = student.load()
    weights, ranges = list(learner.parameters()), [rounding.logarithm for rounding in roundings.values()]
    groups = [{"params": weights, "lr": rate}, {"params": ranges, "lr": FASTER * rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    warm = max(1, round(WARM_UP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    losses = []
    for step, feeds in enumerate(batches):
        with torch.no_grad():
            wanted = run_encoder(teacher, feeds)
        loss = distance(run_encoder(learner, feeds), wanted, feeds)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch types it not
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 20 == 0:
            logger.info("training, step %d of %d, loss %.4f", step, steps, losses[-1])
    for module in learner.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    _save(student.folder, path, learner.state_dict())
    return losses, {place: float(rounding.largest.detach()) for place, rounding in roundings.items()}


def _save(folder: Path, path: Path, trained: Mapping[str, Any]) -> None:
    """The checkpoint's own file with the encoder's tensors replaced: heads stay, names and types too."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(folder / path.name, "pt") as stored:
        tensors, metadata = {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()  # noqa: SIM118
    for name, value in trained.items():
        own = [known for known in tensors if known == name or known.endswith(f".{name}")]
        if own:
            tensors[own[0]] = value.cpu().to(tensors[own[0]].dtype).contiguous()
    save_file(tensors, path, metadata=metadata)
