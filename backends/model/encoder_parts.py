"""Parts of an encoder that can stay in a higher precision than the rest, or be left out of quantization."""

from __future__ import annotations

import re
from pathlib import Path

from backends.model.checkpoint_files import all_tensor_names


def encoder_parts(folder: Path) -> list[str]:
    """Return fnmatch patterns of the checkpoint's parts, in the order of computation.

    The embeddings are one part. A layer of BERT has four: attention, its output product with addition and norm, the
    first product of the feed-forward block, and the second one with addition and norm. The patterns match names of ONNX
    nodes ("/encoder/layer.0/output/dense/MatMul") and names of PyTorch modules in the same notation.
    """
    embeddings, layers = set(), set()
    for name in all_tensor_names(folder):
        if match := re.search(r"(?:^|\.)layer\.(\d+)\.(.+)\.(?:weight|bias)$", name):
            module = match.group(2).split(".")
            part = module[:2] if module[0] == "attention" else module[:1]
            layers.add((int(match.group(1)), "/".join(part)))
        elif match := re.search(r"(?:^|\.)(embeddings(?:_project)?)\.", name):
            embeddings.add(match.group(1))
    return [f"*/{part}/*" for part in [*sorted(embeddings), *(f"layer.{n}/{part}" for n, part in sorted(layers))]]
