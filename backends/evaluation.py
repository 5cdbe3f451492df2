"""A task's texts as batches of the shapes that a cell asks for, with the FP32 embedding of each text.

Texts are shuffled and batch sizes drawn, so that one text after another has other neighbours and other padding: what
leaks from a neighbour or from padding shows in its embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Artifact, Shape, versions_of
from backends.cache import ArtifactCache, digest_of
from backends.checkpoint import input_names, load_encoder, run_encoder


@dataclass(frozen=True)
class Tokenized:
    """Ids of each text without special tokens, and the special ids around and after them."""

    kind: str
    ids: Sequence[Sequence[int]]
    first: int
    last: int
    pad: int


def prepare_evaluation(
    folder: Path,
    weights_sha256: str,
    shapes: Sequence[Shape],
    texts: Sequence[str],
    seed: int,
    device: str,
    cache: ArtifactCache,
) -> Artifact:
    """An .npz of `reference` [texts, hidden] FP32, mean-pooled, and for each batch "<number>/<input>" int32
    [batch, sequence] and "<number>/rows", the texts in it; rows beyond those only fill the batch.

    Notes say how many texts were cut to the longest sequence asked for.
    """

    def build(path: Path) -> Mapping[str, Any]:
        import torch

        names, tokenized = input_names(folder), tokenize(folder, texts, seed)
        encoder = load_encoder(folder).to(device)
        torch.set_float32_matmul_precision("highest")
        lengths = [len(row) + 2 for row in tokenized.ids]
        arrays: dict[str, Array] = {}
        pooled: dict[int, Array] = {}
        for number, (rows, shape) in enumerate(batches(lengths, shapes, seed)):
            feeds = _feeds(tokenized, [*rows, *rows[:1] * (shape.batch - len(rows))], shape, names)
            with torch.inference_mode():
                hidden = run_encoder(encoder, feeds).cpu().numpy()
            pooled |= dict(zip(rows, pool(hidden, feeds["attention_mask"]), strict=False))
            arrays |= {f"{number}/{name}": array for name, array in feeds.items()}
            arrays[f"{number}/rows"] = np.asarray(rows)
        reference = np.stack([pooled[row] for row in range(len(texts))])
        np.savez(path, reference=reference, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        longest = max(shape.sequence for shape in shapes)
        return {"tokens": tokenized.kind, "texts": len(texts), "cut": sum(length > longest for length in lengths)}

    tokenizer = folder / "tokenizer.json"
    key = {
        "weights": weights_sha256,
        "tokenizer": digest_of(tokenizer) if tokenizer.is_file() else "",
        "shapes": [str(shape) for shape in shapes],
        "texts": list(texts),
        "seed": seed,
    }
    return cache.get("evaluation", key, "inputs.npz", build, versions_of(("torch", "transformers", "numpy")))


def pool(hidden: Array, mask: Array) -> Array:
    """The mean over tokens that are not padding: [batch, hidden] FP32 from [batch, sequence, hidden]."""
    kept = mask.astype(bool)[..., None]
    return np.asarray(np.where(kept, hidden.astype(np.float32), 0).sum(1) / kept.sum(1), np.float32)


def tokenize(folder: Path, texts: Sequence[str], seed: int) -> Tokenized:
    """By the checkpoint's tokenizer. One without gets random ids, one a word: enough to compare outputs by."""
    if (folder / "tokenizer.json").is_file():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return Tokenized("text", ids, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    generator = np.random.default_rng(seed)
    ids = [generator.integers(10, 400, max(1, len(text.split()))).tolist() for text in texts]
    return Tokenized("random", ids, 2, 3, 1)


def batches(lengths: Sequence[int], shapes: Sequence[Shape], seed: int) -> Iterator[tuple[list[int], Shape]]:
    """Texts by index and the shape that holds them: the shortest sequence asked for that is long enough."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths)).tolist()
    sizes, sequences = sorted({shape.batch for shape in shapes}), sorted({shape.sequence for shape in shapes})
    begin = 0
    while begin < len(order):
        size = int(generator.choice(sizes))
        rows = order[begin : begin + size]
        longest = max(lengths[row] for row in rows)
        yield rows, Shape(size, next((s for s in sequences if s >= longest), sequences[-1]))
        begin += size


def _feeds(tokenized: Tokenized, rows: Sequence[int], shape: Shape, names: Sequence[str]) -> dict[str, Array]:
    """The texts `rows` padded on the right, cut where they are longer than `shape` allows."""
    ids = np.full((shape.batch, shape.sequence), tokenized.pad, np.int32)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        kept = [tokenized.first, *tokenized.ids[row][: shape.sequence - 2], tokenized.last]
        ids[place, : len(kept)], mask[place, : len(kept)] = kept, 1
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: arrays[name] for name in names}
