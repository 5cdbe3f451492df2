"""Layers of an engine from the builder's verbose log, for an engine that cannot be opened on this machine.

A line of the log has the fields of the inspector's JSON in another form:
"Name: A, LayerType: gemm, Inputs: [ { Name: x, ..., Datatype: Half, ...}], ..., Outputs: [...], TacticName: T, ...".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from backends.tensorrt_.build.inspection import LAYERS, InspectedLayer, summary
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions

LAYER = re.compile(r"^Name: (?P<name>.*), LayerType: (?P<type>[^,]*), Inputs: \[(?P<inputs>.*)\], Constants: ")
OUTPUTS = re.compile(r", Outputs: \[(.*?)\], TacticName: ([^,]*),")
FUSED_PRODUCT = re.compile(r"__myl_Fc")
"""Start of the name of a layer that begins with a matrix product, such as the product before a GELU."""

OPERANDS = {"Int8": "i8", "FP8": "e4m3", "BFloat16": "bf16", "Half": "f16", "Float": "f32"}
"""Names of data types in `product_types` of a record, by their names in the log."""

DATATYPE = re.compile(r"Datatype: (\w+)")


def write_logged_layers(api: TensorRTApi, plan: Path, options: TensorRTOptions, log: Log) -> Mapping[str, object]:
    """Write layers.json next to a plan from the log of its build, and return the summary of `write_layers`.

    Memory of activations is not known before an engine is opened. Without layers in the log, return only the target.
    """
    layers, target = logged_layers(log.layers), {"target": options.target.name}
    if not layers:
        return target
    plan.with_name(LAYERS).write_text(json.dumps({"Layers": layers}, indent=1), encoding="utf-8")
    return {**target, "layers": summary(layers), "product_types": operand_types(layers)}


def operand_types(layers: Sequence[InspectedLayer]) -> dict[str, int]:
    """Count the matrix products of all profiles by the data type of their first operand.

    Products inside fused attention are not counted.
    """
    products = [layer for layer in layers if layer["LayerType"] == "gemm" or FUSED_PRODUCT.match(layer["Name"])]
    types = [layer["Inputs"][0]["Format/Datatype"] if layer["Inputs"] else "Constant" for layer in products]
    return dict(Counter(OPERANDS.get(kind, "other") for kind in types))


def logged_layers(lines: Sequence[str]) -> list[InspectedLayer]:
    """Return the layers that the lines describe; other lines are left out."""
    return [layer for line in lines if (layer := _layer(line)) is not None]


def _layer(line: str) -> InspectedLayer | None:
    found = LAYER.search(line)
    if found is None:
        return None
    outputs = OUTPUTS.search(line)
    types = DATATYPE.findall(outputs.group(1)) if outputs else []
    return {
        "Name": found["name"],
        "LayerType": found["type"],
        "TacticName": outputs.group(2).strip() if outputs else "",
        "Inputs": [{"Format/Datatype": kind} for kind in DATATYPE.findall(found["inputs"])],
        "Outputs": [{"Format/Datatype": kind} for kind in types],
    }
