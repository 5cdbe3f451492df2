"""The project's FP32 encoder and its ONNX export against plain transformers, at every length of a padded batch.

Every path is compared with the project's own encoder, so a mask that is wrong there would be wrong everywhere without a
difference to show it. transformers' own eager attention is the independent reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.base import Array, Feeds, versions_of
from backends.cache import ArtifactCache
from backends.checkpoint import input_names, load_encoder, run_encoder
from backends.checkpoint_files import read_config, weight_files
from backends.families import padding_id, positions_of, token_types_of, vocabulary_of

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-4
"""Largest absolute difference in FP32, over hidden states of unit size."""

MOST_LENGTHS, FEWEST_LENGTHS = 64, 8

BUDGET = 5e11
"""Multiply-adds that one run over all lengths may take before fewer lengths are tried: some seconds of a CPU."""

ROWS = 8
"""Sequences of a batch."""

Run = Callable[[Feeds], Array]
"""Hidden states [batch, sequence, hidden] FP32 of feeds [batch, sequence]."""


def check_encoder(folder: Path, identity: str, longest: int, cache: ArtifactCache) -> Mapping[str, Any]:
    """Check the project's encoder; gives `difference`, `lengths` (how many) and `longest`, from the cache if known.

    Args:
        identity: of the checkpoint in `folder`.
        longest: tokens of the longest sequence.

    Raises:
        ArithmeticError: the encoder differs from transformers by more than TOLERANCE.
    """
    return _checked("encoder", {}, folder, identity, longest, cache, lambda: _own(folder))


def check_export(folder: Path, identity: str, longest: int, cache: ArtifactCache) -> Mapping[str, Any]:
    """The same of the exported FP32 ONNX file, run by onnxruntime on the CPU."""
    from backends.onnx_source import export_onnx

    onnx = export_onnx(folder, identity, cache)
    return _checked("export", {"onnx": onnx.sha256}, folder, identity, longest, cache, lambda: _exported(onnx.path))


def compare_export(folder: Path, onnx: Path, longest: int) -> float:
    """The largest difference of an ONNX file from transformers; raises ArithmeticError as `check_export` does."""
    return _compare("export", folder, longest, lambda: _exported(onnx))[0]


def _checked(
    part: str, key: Mapping[str, Any], folder: Path, identity: str, longest: int, cache: ArtifactCache,
    candidate: Callable[[], Run],
) -> Mapping[str, Any]:  # fmt: skip
    def build(path: Path) -> Mapping[str, Any]:
        difference, count = _compare(part, folder, longest, candidate)
        path.write_text(f"{difference}\n", encoding="utf-8")
        return {"difference": difference, "lengths": count, "longest": longest}

    versions = versions_of(("torch", "transformers", "numpy", "onnxruntime-gpu", "onnxruntime"))
    named = {"part": part, "checkpoint": identity, "longest": longest, "form": 1, **key}
    return cache.get("reference-check", named, "difference.txt", build, versions).notes


def _compare(part: str, folder: Path, longest: int, candidate: Callable[[], Run]) -> tuple[float, int]:
    """The largest difference of `candidate` from transformers over all lengths, and how many lengths there were."""
    config = read_config(folder)
    lengths = tried_lengths(min(longest, positions_of(config)), _parameters(folder))
    batches = list(padded_batches(lengths, config, input_names(folder)))
    found = _run_all(candidate(), batches)  # first: it says what is wrong with a checkpoint
    wanted = _run_all(_plain(folder), batches)
    if not all(np.isfinite(one[feeds["attention_mask"] > 0]).all() for feeds, one in zip(batches, wanted, strict=True)):
        raise ArithmeticError(
            "transformers itself gives NaN or Inf for this checkpoint; its weights or its config.json are damaged"
        )
    worst, where, size = 0.0, 0, 1.0
    for feeds, one, other in zip(batches, wanted, found, strict=True):
        kept = feeds["attention_mask"].astype(bool)
        size = max(size, float(np.sqrt(np.mean(one[kept] ** 2))))
        by_row = np.where(kept[..., None], np.abs(one - other), 0).max((1, 2))
        by_row = np.where(np.isfinite(by_row), by_row, np.inf)
        if by_row.max() > worst:
            worst, where = float(by_row.max()), int(kept[by_row.argmax()].sum())
    if not worst <= TOLERANCE * size:
        name = "own FP32 encoder" if part == "encoder" else "exported ONNX file"
        raise ArithmeticError(
            f"the {name} differs from transformers by {worst:.2e} (at most {TOLERANCE * size:.0e}) at {where} of "
            f"{lengths[-1]} tokens; its attention mask or an operation is wrong for this checkpoint"
        )
    return worst, len(lengths)


def tried_lengths(longest: int, parameters: int) -> list[int]:
    """Lengths from 1 to `longest`: all of them, or evenly spread ones where they would take too long."""
    affordable = int(BUDGET / max(1, parameters * longest))
    count = min(longest, MOST_LENGTHS, max(FEWEST_LENGTHS, affordable))
    return sorted({int(length) for length in np.linspace(1, longest, count).round()})


def padded_batches(lengths: Sequence[int], config: Mapping[str, Any], names: Sequence[str]) -> Iterator[Feeds]:
    """Batches of random tokens, short and long sequences together, each padded to its longest."""
    generator = np.random.default_rng(0)
    pad, types = padding_id(config), token_types_of(config)
    ordinary = np.setdiff1d(np.arange(min(vocabulary_of(config), 20_000)), [pad])
    count = -(-len(lengths) // ROWS)
    for start in range(count):
        rows = lengths[start::count]
        ids = generator.choice(ordinary, (len(rows), max(rows))).astype(np.int32)
        mask = (np.arange(max(rows)) < np.asarray(rows)[:, None]).astype(np.int32)
        kinds = (generator.integers(0, types, ids.shape) if types else np.zeros_like(ids)).astype(np.int32)
        arrays = {"input_ids": np.where(mask > 0, ids, pad).astype(np.int32), "attention_mask": mask,
                  "token_type_ids": kinds * mask}  # fmt: skip
        yield {name: arrays[name] for name in names}


def _run_all(run: Run, batches: Sequence[Feeds]) -> list[Array]:
    return [run(feeds) for feeds in batches]


def _parameters(folder: Path) -> int:
    """About how many parameters a token is multiplied by; the bytes of the weights bound it."""
    return sum(path.stat().st_size for path in weight_files(folder)) // 4


def _plain(folder: Path) -> Run:
    """transformers' AutoModel with its own eager attention, called as its users call it."""
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, local_files_only=True, trust_remote_code=False,
        use_safetensors=True,
    ).eval()  # fmt: skip

    def run(feeds: Feeds) -> Array:
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(array).long() for name, array in feeds.items()}
            return np.asarray(model(**inputs).last_hidden_state.numpy())

    return run


def _own(folder: Path) -> Run:
    import torch

    encoder: torch.nn.Module = load_encoder(folder)

    def run(feeds: Feeds) -> Array:
        with torch.inference_mode():
            return np.asarray(run_encoder(encoder, feeds).numpy())

    return run


def _exported(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(feeds: Feeds) -> Array:
        (hidden,) = session.run(None, dict(feeds))
        return np.asarray(hidden)

    return run
