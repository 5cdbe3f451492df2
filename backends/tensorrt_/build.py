"""ONNX to a plan: parse, set precisions and profiles, build, and say what came out of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt

from backends.base import BuildSpec, Source, Unsupported
from backends.cuda import use_device
from backends.tensorrt_.calibration import calibrator
from backends.tensorrt_.capabilities import installed
from backends.tensorrt_.inspection import write_layers
from backends.tensorrt_.log import Log
from backends.tensorrt_.precision import set_precision
from backends.tensorrt_.profiles import plan_profiles
from backends.tensorrt_.progress import Watch, monitor
from backends.tensorrt_.timing_cache import load_timings, save_timings, timing_cache_path

can = installed()


def build_plan(spec: BuildSpec, source: Source, path: Path) -> Mapping[str, Any]:
    """Build `source` as `spec` says and write the plan to `path` and its layers beside it; returns notes.

    Raises:
        Unsupported: the graph has something that this release cannot read or quantize.
        RuntimeError: the build failed; the message is TensorRT's first error and what may help.
    """
    assert source.onnx is not None
    use_device(spec.device.index)
    options, log = spec.options, Log()
    with Watch("starting the builder") as watch:
        for library in options["plugin_libraries"]:
            trt.get_plugin_registry().load_library(library)
        trt.init_libnvinfer_plugins(log, "")
        builder = trt.Builder(log)
        watch.phase = "parsing"
        network = builder.create_network(_network_flags(options))
        parse(network, source.onnx.path, int(source.onnx.notes.get("opset", 0)), log)
        config = _configured(builder, options)
        monitor(config, watch)
        held = set_precision(spec, network, config)
        profiles = _add_profiles(builder, network, config, spec)
        if spec.quantization.get("scheme") == "implicit":
            _calibrate(builder, network, config, spec, source)
        timings = timing_cache_path(spec.cache, spec.device)
        load_timings(config, timings)
        watch.phase = "building"
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise _failure(log, spec)
        save_timings(config, timings)
        path.write_bytes(memoryview(plan))
    return {
        "profiles": profiles,
        "engine_bytes": path.stat().st_size,
        "layers_in_fp32": held,
        **write_layers(path, log),
        **watch.notes(),
        "peak_allocator_bytes": log.peak_bytes,
        "log": log.lines(),
    }


def _network_flags(options: Mapping[str, Any]) -> int:
    flags = 0
    if can.explicit_batch:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    if can.strong_typing and options["types"] == "graph":
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return flags


def parse(network: trt.INetworkDefinition, onnx: Path, opset: int, log: Log) -> None:
    """Read the file into `network`.

    Raises:
        Unsupported: it cannot be read; the message has the node and the reason of each error.
    """
    if opset > 17 and not can.opset_19:
        raise Unsupported(
            f"the ONNX file has opset {opset} and TensorRT {trt.__version__} reads up to 17: export lower"
        )
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(onnx)):
        return
    errors = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = f"{error.node_name()} [{error.node_operator()}]" if can.named_parser_errors else log.last_node
        errors.append(f"node {error.node()} {node}: {error.desc()}")
    known = trt.get_plugin_registry().plugin_creator_list if can.weak_typing else ()
    advice = (
        f"none of the registry's {len(known)} plugins is meant by it; trt.plugin_libraries=[FILE.so] adds more"
        if any("lugin" in text for text in errors)
        else "this release's parser has no importer for it"
    )
    raise Unsupported(f"TensorRT {trt.__version__} cannot read the ONNX file: {'; '.join(errors)}; {advice}")


def _configured(builder: trt.Builder, options: Mapping[str, Any]) -> trt.IBuilderConfig:
    config = builder.create_builder_config()
    if options["workspace_mb"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options["workspace_mb"] << 20)
    config.builder_optimization_level = options["optimization_level"]
    config.profiling_verbosity = getattr(trt.ProfilingVerbosity, options["verbosity"].upper())
    if options["aux_streams"] >= 0:
        config.max_aux_streams = options["aux_streams"]
    if options["hardware_compatible"]:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options["refit"]:
        config.set_flag(trt.BuilderFlag.REFIT)
    if options["tactic_sources"]:
        config.set_tactic_sources(_tactic_sources(options["tactic_sources"]))
    return config


def _tactic_sources(names: list[str]) -> int:
    """The bits of `names`; "none" is no source at all."""
    known = trt.TacticSource.__members__
    for name in names:
        if name != "none" and name.upper() not in known:
            raise Unsupported(f"trt.tactic_sources has {name}; this release has none, {', '.join(known).lower()}")
    return sum(1 << int(known[name.upper()]) for name in names if name != "none")


def _add_profiles(
    builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig, spec: BuildSpec
) -> list[str]:
    """Give `config` the cell's profiles; returns them as text."""
    planned = plan_profiles(spec.shapes, spec.options)
    for one in planned:
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            sizes = [(shape.batch, shape.sequence) for shape in (one.low, one.best, one.high)]
            profile.set_shape(network.get_input(index).name, *sizes)
        config.add_optimization_profile(profile)
    return [str(one) for one in planned]


def _calibrate(
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    spec: BuildSpec,
    source: Source,
) -> None:
    """Have `config` find INT8 ranges by itself, at the one shape of the calibration batches."""
    if not can.calibration:
        raise Unsupported(f"TensorRT {trt.__version__} has no calibrators; use quantization.scheme=explicit")
    assert source.onnx is not None
    assert source.calibration is not None
    method = spec.quantization["method"]
    name = "-".join([trt.__version__, method, source.onnx.sha256[:16], source.calibration.sha256[:16]])
    config.int8_calibrator = calibrator(source.calibration.path, method, spec.cache / "calibration" / name)
    with np.load(source.calibration.path, allow_pickle=False) as batches:
        shape = batches["input_ids"].shape[1:]
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        profile.set_shape(network.get_input(index).name, shape, shape, shape)
    config.set_calibration_profile(profile)


def _failure(log: Log, spec: BuildSpec) -> Exception:
    """Why nothing was built, by TensorRT's own errors."""
    errors = [message.strip().replace("\n", " ") for message in log.errors] or ["TensorRT gave no reason"]
    text = f"{errors[0]}{f' ... {errors[-1]}' if len(errors) > 1 else ''}"
    if any("memory" in message.lower() for message in errors):
        return RuntimeError(
            f"too little GPU memory to build: free some, set trt.workspace_mb, or ask for smaller shapes ({text})"
        )
    if spec.quantization.get("scheme") == "implicit":
        return Unsupported(f"this release cannot calibrate the graph: use quantization.scheme=explicit ({text})")
    return RuntimeError(f"TensorRT could not build the engine: {text}")
