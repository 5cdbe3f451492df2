"""Layers of an engine, from TensorRT's inspector, and their summary for the record."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from backends.tensorrt_.runtime.loading import read_plan
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions, Verbosity

InspectedOutput = TypedDict("InspectedOutput", {"Format/Datatype": str}, total=False)


class InspectedLayer(TypedDict, total=False):
    """A layer in the inspector's JSON; it has more fields. With little detail, a layer is only its name."""

    Name: str
    LayerType: str
    TacticName: str
    TacticValue: str
    Inputs: list[InspectedOutput]
    Outputs: list[InspectedOutput]


LAYERS = "layers.json"
"""File of the inspector's JSON, next to a plan."""

PRODUCT = re.compile(r"Conv|Gemm|MatrixMultiply|FullyConnected")
"""Pattern in the type of a layer that is a matrix product."""

OPERAND_TYPE = re.compile(r"_(i8|e4m3|bf16|f16|f32)(?:i8|e4m3|bf16|f16|f32)_")
"""Pattern in the name of a product's kernel. The group is the data type of the operands."""


def write_layers(api: TensorRTApi, path: Path, options: TensorRTOptions, log: Log) -> Mapping[str, object]:
    """Inspect the plan at `path`, write layers.json next to it, and return a summary.

    The file is the inspector's JSON. `polygraphy inspect` and TensorRT's own tools read the same data from the plan.
    With verbosity=none an engine has no data about its layers, and no file is written.
    """
    trt, can = api.trt, api.can
    engine = read_plan(api, path.read_bytes(), options, log)
    assert engine is not None, log.last_error()
    memory = engine.device_memory_size if can.memory_size_v1 else engine.device_memory_size_v2
    if options.verbosity is Verbosity.none:
        return {"activation_bytes": memory}
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    path.with_name(LAYERS).write_text(text, encoding="utf-8")
    layers = json.loads(text)["Layers"]
    return {"activation_bytes": memory, "layers": summary(layers), "product_types": product_types(layers)}


def read_tactics(plan: Path) -> tuple[str, ...]:
    """Return "layer: kernel tactic" for each layer in the layers.json next to a plan; empty without the file."""
    path = plan.with_name(LAYERS)
    if not path.is_file():
        return ()
    layers: Sequence[str | InspectedLayer] = json.loads(path.read_text(encoding="utf-8"))["Layers"]
    return tuple(entry if isinstance(entry, str) else _tactic(entry) for entry in layers)


def _tactic(entry: InspectedLayer) -> str:
    chosen = (entry.get("LayerType", ""), entry.get("TacticName", ""), entry.get("TacticValue", ""))
    return f"{entry.get('Name', '?')}: {' '.join(text for text in chosen if text)}"


def summary(layers: Sequence[str | InspectedLayer]) -> dict[str, int]:
    """Count the layers by type and output format. Return the 12 most frequent combinations."""
    counts: Counter[str] = Counter()
    for entry in layers:
        if isinstance(entry, str):
            counts["layers"] += 1
            continue
        formats = sorted({str(output.get("Format/Datatype", "")) for output in entry.get("Outputs", ())})
        counts[f"{entry.get('LayerType', '?')} -> {', '.join(formats)}"] += 1
    return dict(counts.most_common(12))


def product_types(layers: Sequence[str | InspectedLayer]) -> dict[str, int]:
    """Count the matrix products of all profiles by the data type of their operands.

    The type comes from the kernel's name; it is "other" if the name has none. Products inside a layer of Myelin are not
    counted.
    """
    products = [entry for entry in layers if isinstance(entry, dict) and PRODUCT.search(entry.get("LayerType", ""))]
    types = [OPERAND_TYPE.search(product.get("TacticName", "")) for product in products]
    return dict(Counter(match.group(1) if match else "other" for match in types))
