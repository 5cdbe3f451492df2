"""Quantization-aware training: an encoder learns to give its FP32 outputs while its tensors are rounded to INT8.

The teacher is the checkpoint itself, so no labels are needed: texts are enough. What comes out is a checkpoint like the
one that went in, and beside it the ranges of activations that were learned with it (RANGES), for every path to take.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Artifact, versions_of
from backends.cache import ArtifactCache
from backends.checkpoint import input_names
from backends.inputs import Tokens
from backends.quantize import PLACEMENTS

logger = logging.getLogger(__name__)

WARM_UP = 0.1
"""Share of the steps over which the rate rises; from there it falls to 0."""

FASTER = 100.0
"""How many times the weights' rate the ranges, which are logarithms, are learned at."""

RANGES = "trained_ranges.json"
"""Largest absolute activation by place in the exported graph, see backends/rounding.py's round_encoder."""

BATCH = 32


def train(
    folder: Path,
    weights_sha256: str,
    quantization: Mapping[str, Any],
    texts: Sequence[str],
    seed: int,
    device: str,
    plugins: bool,
    floating: Sequence[str],
    cache: ArtifactCache,
) -> Artifact:
    """A checkpoint in a folder of its own, trained under fake quantization; its notes have the loss at both ends.

    Args:
        quantization: `qat_steps` (of 32 sequences), `qat_rate` (of AdamW, at its highest), `placement` of the Q/DQ that
            is trained for, `leave_out`, patterns of nodes of the graph that are left alone, `sequence` and `tokens` of
            the sequences.
        texts: what the sequences are made of.
        plugins: whether it is for an engine of plugins, which rounds all that they compute in INT8.
        floating: nodes (backends/quantize.py's NODES) that the backend does not round.
    """
    nodes = [name for name in PLACEMENTS["all" if plugins else quantization["placement"]] if name not in floating]
    left = list(quantization.get("leave_out", ()))
    chosen = {name: quantization[name] for name in ("qat_steps", "qat_rate", "sequence")}

    def build(path: Path) -> Mapping[str, Any]:
        for file in folder.iterdir():
            if file.is_file() and file.name not in (path.name, "artifact.json"):
                shutil.copy(file, path.with_name(file.name))
        tokens = Tokens.of(folder, quantization.get("tokens", "auto"), texts, seed)
        batches = _batches(tokens, input_names(folder), chosen["qat_steps"], chosen["sequence"], seed)
        losses, ranges = _train(
            folder, path, nodes, plugins, left, batches, chosen["qat_steps"], chosen["qat_rate"], seed, device
        )
        path.with_name(RANGES).write_text(json.dumps(ranges, indent=1))
        tenth = max(1, len(losses) // 10)
        return {"steps": len(losses), "loss_first": losses[0], "loss_last": float(np.mean(losses[-tenth:]))}

    key = {
        "weights": weights_sha256,
        "config": (folder / "config.json").read_text(),
        "nodes": sorted(nodes),
        "plugins": plugins,
        "leave_out": left,
        "form": 2,
        "texts": list(texts),
        "tokens": quantization.get("tokens", "auto"),
        "seed": seed,
        **chosen,
    }
    return cache.get("qat", key, "model.safetensors", build, versions_of(("torch", "transformers", "safetensors")))


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
    folder: Path, path: Path, nodes: Collection[str], plugins: bool, left: Collection[str],
    batches: Iterator[Mapping[str, Array]], steps: int, rate: float, seed: int, device: str,
) -> tuple[list[float], dict[str, float]]:  # fmt: skip
    """Write the trained weights to `path`; gives the loss of each step, and the ranges."""
    import torch
    from torch.nn.utils import parametrize

    from backends.checkpoint import load_encoder, run_encoder
    from backends.rounding import register, round_encoder

    torch.manual_seed(seed)
    register()
    teacher = load_encoder(folder).to(device)
    student = load_encoder(folder, "rounded").to(device)
    weights = list(student.parameters())
    roundings = round_encoder(student, nodes, plugins, left)
    ranges = [rounding.to(device).logarithm for rounding in roundings.values()]
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
        loss = _distance(run_encoder(student, feeds), wanted, torch.from_numpy(feeds["attention_mask"]).to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 20 == 0:
            logger.info("training, step %d of %d, loss %.4f", step, steps, losses[-1])
    for module in student.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    _save(folder, path, student.state_dict())
    return losses, {place: float(rounding.largest.detach()) for place, rounding in roundings.items()}


def _distance(found: Any, wanted: Any, mask: Any) -> Any:
    """How far hidden states are from those wanted, by token and by the mean over tokens, relative to their size."""
    kept = mask[..., None].float()
    tokens = ((found - wanted) ** 2 * kept).sum() / (wanted**2 * kept).sum()
    pooled, goal = ((x * kept).sum(1) for x in (found, wanted))
    return tokens + ((pooled - goal) ** 2).sum() / (goal**2).sum()


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
