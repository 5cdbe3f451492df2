"""Network from an ONNX file, with its precision and, for implicit quantization, its INT8 calibration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from backends.base import BuildSpec, Source, Unsupported
from backends.json_codec import from_json
from backends.tensorrt_.build.build_target import BuildTarget
from backends.tensorrt_.build.precision import set_precision
from backends.tensorrt_.runtime.layout import Layout, Rows


def define_from_onnx(target: BuildTarget, spec: BuildSpec, source: Source) -> tuple[Layout, Mapping[str, object]]:
    """Fill the network from the source's ONNX file; see DefineNetwork in backends/tensorrt_/build/build_target.py.

    Raises:
        Unsupported: the file cannot be read or calibrated.
    """
    assert source.onnx is not None
    network = target.network
    parse(target, source.onnx.path, from_json(int, source.onnx.notes.get("opset", 0), "opset"))
    layers_in_fp32 = set_precision(target, spec)
    if not spec.quantization.explicit:
        _calibrate(target, spec, source)
    names = tuple(network.get_input(index).name for index in range(network.num_inputs))
    return Rows(names), {"layers_in_fp32": layers_in_fp32}


def parse(target: BuildTarget, onnx: Path, opset: int) -> None:
    """Parse the file `onnx`, which has that opset, into the network.

    Raises:
        Unsupported: the file cannot be read; the message has the node and the reason of each error.
    """
    trt, can, log = target.api.trt, target.api.can, target.log
    if opset > 17 and not can.opset_19:
        raise Unsupported(
            f"the ONNX file has opset {opset} and TensorRT {target.api.version} reads up to 17: export opset 17"
        )
    parser = trt.OnnxParser(target.network, log.logger)
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
    raise Unsupported(f"TensorRT {target.api.version} cannot read the ONNX file: {'; '.join(errors)}{advice}")


def _calibrate(target: BuildTarget, spec: BuildSpec, source: Source) -> None:
    """Set up the configuration so that TensorRT calibrates INT8 ranges, at the shape of the calibration batches."""
    from backends.tensorrt_.build.calibrator import calibrator

    can, network, config = target.api.can, target.network, target.config
    if not can.calibration:
        raise Unsupported(f"TensorRT {target.api.version} has no calibrators; use quantization.scheme=explicit")
    assert source.onnx is not None
    assert source.calibration is not None
    method = spec.quantization.method.name
    name = "-".join([target.api.version, method, source.onnx.sha256[:16], source.calibration.sha256[:16]])
    config.int8_calibrator = calibrator(target.api, source.calibration.path, method, spec.cache / "calibration" / name)
    with np.load(source.calibration.path, allow_pickle=False) as batches:
        shape = batches["input_ids"].shape[1:]
    optimization_profile = target.builder.create_optimization_profile()
    for index in range(network.num_inputs):
        optimization_profile.set_shape(network.get_input(index).name, shape, shape, shape)
    config.set_calibration_profile(optimization_profile)
