"""What is in an engine: its layers as TensorRT's inspector gives them, summarized for the record."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorrt as trt

from backends.tensorrt_.capabilities import installed
from backends.tensorrt_.loading import read_plan
from backends.tensorrt_.log import Log

can = installed()

PRODUCT = re.compile(r"Conv|Gemm|MatrixMultiply|FullyConnected")
"""In the kind of a layer that is a product."""

MULTIPLIED = re.compile(r"_(i8|e4m3|bf16|f16|f32)(?:i8|e4m3|bf16|f16|f32)_")
"""In the name of its kernel: the type of what it multiplies."""


def write_layers(path: Path, options: Mapping[str, Any], log: Log) -> Mapping[str, Any]:
    """Inspect the plan that was just written to `path`, write layers.json beside it, and return a summary.

    The file is the inspector's JSON; `polygraphy inspect` and TensorRT's own tools read the same from the plan. With
    `verbosity` none an engine tells nothing of its layers, and there is no such file.
    """
    engine = read_plan(path.read_bytes(), options, log)
    memory = engine.device_memory_size if can.memory_size_v1 else engine.device_memory_size_v2
    if options["verbosity"] == "none":
        return {"activation_bytes": memory}
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    path.with_name("layers.json").write_text(text, encoding="utf-8")
    layers = json.loads(text)["Layers"]
    return {"activation_bytes": memory, "layers": summary(layers), "product_types": product_types(layers)}


def summary(layers: Sequence[Any]) -> dict[str, int]:
    """How many layers there are of each kind and output type, most first."""
    kinds: Counter[str] = Counter()
    for entry in layers:
        if isinstance(entry, str):
            kinds["layers"] += 1
            continue
        formats = sorted({str(output.get("Format/Datatype", "")) for output in entry.get("Outputs", ())})
        kinds[f"{entry.get('LayerType', '?')} -> {', '.join(formats)}"] += 1
    return dict(kinds.most_common(12))


def product_types(layers: Sequence[Any]) -> dict[str, int]:
    """How many products of all profiles multiply which type, by the names of their kernels, "other" where a name does
    not tell; none where Myelin holds them."""
    products = [x for x in layers if isinstance(x, dict) and PRODUCT.search(x.get("LayerType", ""))]
    types = [MULTIPLIED.search(product.get("TacticName", "")) for product in products]
    return dict(Counter(found.group(1) if found else "other" for found in types))
