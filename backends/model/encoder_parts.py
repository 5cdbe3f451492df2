"""Parts of an encoder that can stay in a higher precision than the rest, or be left out of quantization."""

from __future__ import annotations

import re
from pathlib import Path

from backends.model.checkpoint_files import all_tensor_names, read_config
from backends.model.families import BERT_NAMES, family_of


def encoder_parts(folder: Path) -> list[str]:
    """Return fnmatch patterns of the checkpoint's parts, in the order of computation.

    The embeddings are one part. A layer of BERT has four: attention, its output product with addition and norm, the
    first product of the feed-forward block, and the second one with addition and norm. The patterns match names of ONNX
    nodes ("/encoder/layer.0/output/dense/MatMul") and names of PyTorch modules in the same notation. Layers that share
    weights are not parts.

    Raises:
        Unsupported: the model type is unknown.
    """
    names = family_of(read_config(folder)).layer_names or BERT_NAMES
    attention, list_name = names.query.partition(".")[0], names.layers.rpartition(".")[2]
    in_layer = re.compile(rf"(?:^|\.){re.escape(names.layers)}\.(\d+)\.(.+)\.(?:weight|bias)$")
    in_embeddings = re.compile(rf"(?:^|\.)({names.word.partition('.')[0]}|{re.escape(names.projection)})\.")
    embeddings, layers = set(), set()
    for name in all_tensor_names(folder):
        if match := in_layer.search(name):
            module = match.group(2).split(".")
            part = module[:2] if module[0] == attention else module[:1]
            layers.add((int(match.group(1)), "/".join(part)))
        elif match := in_embeddings.search(name):
            embeddings.add(match.group(1))
    return [f"*/{part}/*" for part in [*sorted(embeddings), *(f"{list_name}.{n}/{part}" for n, part in sorted(layers))]]
