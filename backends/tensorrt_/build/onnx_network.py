"""Network from an ONNX file, with its precision and, for implicit quantization, its INT8 calibration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt

from backends.base import BuildSpec, Source, Unsupported
from backends.tensorrt_.build.calibrator import calibrator
from backends.tensorrt_.build.precision import set_precision
from backends.tensorrt_.runtime.capabilities import installed
from backends.tensorrt_.runtime.layout import Layout, Rows
from backends.tensorrt_.runtime.log import Log

can = installed()


def define_from_onnx(
    spec: BuildSpec,
    source: Source,
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    log: Log,
) -> tuple[Layout, Mapping[str, Any]]:
    """Fill `network` from the source's ONNX file; see backends.tensorrt_.build.build.Define.

    Raises:
        Unsupported: the file cannot be read or calibrated.
    """
    assert source.onnx is not None
    parse(network, source.onnx.path, int(source.onnx.notes.get("opset", 0)), log)
    layers_in_fp32 = set_precision(spec, network, config)
    if not spec.quantization.explicit:
        _calibrate(builder, network, config, spec, source)
    names = tuple(network.get_input(index).name for index in range(network.num_inputs))
    return Rows(names), {"layers_in_fp32": layers_in_fp32}


def parse(network: trt.INetworkDefinition, onnx: Path, opset: int, log: Log) -> None:
    """Parse the file `onnx`, which has that opset, into `network`.

    Raises:
        Unsupported: the file cannot be read; the message has the node and the reason of each error.
    """
    if opset > 17 and not can.opset_19:
        raise Unsupported(
            f"the ONNX file has opset {opset} and TensorRT {trt.__version__} reads up to 17: export opset 17"
        )
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(onnx)):
        return
    errors = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = f"{error.node_name()} [{error.node_operator()}]" if can.named_parser_errors else log.last_node
        errors.append(f"node {error.node()} {node}: {' '.join(error.desc().split())}")
    advice = (
        "; the registry has no plugin for this node, so add its library with trt.plugin_libraries=[FILE.so]"
        if any("plugin" in text.lower() for text in errors)
        else ""
    )
    raise Unsupported(f"TensorRT {trt.__version__} cannot read the ONNX file: {'; '.join(errors)}{advice}")


def _calibrate(
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    spec: BuildSpec,
    source: Source,
) -> None:
    """Set up `config` so that TensorRT calibrates INT8 ranges, at the shape of the calibration batches."""
    if not can.calibration:
        raise Unsupported(f"TensorRT {trt.__version__} has no calibrators; use quantization.scheme=explicit")
    assert source.onnx is not None
    assert source.calibration is not None
    method = spec.quantization.method.name
    name = "-".join([trt.__version__, method, source.onnx.sha256[:16], source.calibration.sha256[:16]])
    config.int8_calibrator = calibrator(source.calibration.path, method, spec.cache / "calibration" / name)
    with np.load(source.calibration.path, allow_pickle=False) as batches:
        shape = batches["input_ids"].shape[1:]
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        profile.set_shape(network.get_input(index).name, shape, shape, shape)
    config.set_calibration_profile(profile)
