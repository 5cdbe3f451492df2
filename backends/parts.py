"""The parts of an encoder: what can be held in a higher precision than the rest, or left out of quantization."""

from __future__ import annotations

import re
from pathlib import Path

from backends.checkpoint_files import all_tensor_names


def parts_of(folder: Path) -> list[str]:
    """Patterns (fnmatch) of the checkpoint's parts, in the order in which they are computed.

    A part is the embeddings, or in a layer attention, its output with addition and norm, and the same of the
    feed-forward block. The patterns match the names of ONNX nodes ("/encoder/layer.0/output/dense/MatMul") and of
    PyTorch's modules written like them.
    """
    embeddings, layers = set(), set()
    for name in all_tensor_names(folder):
        if found := re.search(r"(?:^|\.)layer\.(\d+)\.(.+)\.(?:weight|bias)$", name):
            inside = found.group(2).split(".")
            kept = inside[:2] if inside[0] == "attention" else inside[:1]
            layers.add((int(found.group(1)), "/".join(kept)))
        elif found := re.search(r"(?:^|\.)(embeddings(?:_project)?)\.", name):
            embeddings.add(found.group(1))
    return [f"*/{part}/*" for part in [*sorted(embeddings), *(f"layer.{n}/{part}" for n, part in sorted(layers))]]
