"""A network to a plan: configure, add profiles, build, and say what came out of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorrt as trt

from backends.base import BuildSpec, Unavailable, Unsupported
from backends.cuda import free_memory, use_device
from backends.tensorrt_.capabilities import installed
from backends.tensorrt_.inspection import write_layers
from backends.tensorrt_.layout import Layout, Sizes
from backends.tensorrt_.loading import load_plugins
from backends.tensorrt_.log import Log
from backends.tensorrt_.profiles import plan_profiles
from backends.tensorrt_.progress import Watch, monitor
from backends.tensorrt_.timing_cache import load_timings, save_timings, timing_cache_path
from backends.tensorrt_.trial import faults

can = installed()

SCARCE = 2 << 30
"""Bytes of free device memory below which a failed build is put down to that. The builder, cuBLAS and cuDNN take about
1 GB before any tensor; when they cannot, TensorRT names many things, memory not always among them."""

SHORT_OF_MEMORY = re.compile(r"out ?of ?memory|insufficient memory|memoryallocation|could not be allocated", re.I)
"""How TensorRT and CUDA say so. Not "memory" alone: an illegal memory access is another matter."""

Define = Callable[[trt.Builder, trt.INetworkDefinition, trt.IBuilderConfig, Log], tuple[Layout, Mapping[str, Any]]]
"""Fills a network and sets what its precision asks of the configuration; gives the layout of its inputs and notes."""


def build_plan(spec: BuildSpec, path: Path, define: Define) -> Mapping[str, Any]:
    """Build what `define` makes as `spec` says and write the plan to `path` and its layers beside it; returns notes.

    Raises:
        Unsupported: the network has something that this release cannot read or quantize.
        RuntimeError: the build failed; the message is TensorRT's first error and what may help.
    """
    use_device(spec.device.index)
    options, log, free = spec.options, Log(), free_memory()
    with Watch("starting the builder") as watch:
        load_plugins(options, log)
        builder = _builder(log, spec, free)
        watch.enter("defining the network")
        network = builder.create_network(_network_flags(options))
        config = _configured(builder, options)
        monitor(config, watch)
        layout, notes = define(builder, network, config, log)
        profiles = plan_profiles(spec.shapes, options)
        for planned in profiles:
            _add_profile(builder, config, layout.sizes(planned), log)
        timings = timing_cache_path(spec.cache, spec.device)
        load_timings(config, timings)

        def build(phase: str) -> tuple[Any, bool]:
            """The plan, and whether there is nothing to be gained by building once more."""
            watch.enter(phase)
            plan = builder.build_serialized_network(network, config)
            if plan is None:
                return plan, True
            watch.enter("opening what was built")
            path.write_bytes(memoryview(plan))
            found = faults(path, options, spec.device.index)
            log.errors += found
            return plan, not found or _short_of_memory(log)

        plan, settled = build("building")
        if not settled:
            # What it timed led it there: time everything anew.
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
            plan, settled = build("building again, for TensorRT cannot open what it built")
        if not settled:
            raise RuntimeError(f"TensorRT cannot open the engine that it built, twice: {log.last_error()}")
        if plan is None or _short_of_memory(log):
            raise _failure(log, spec, free)
        save_timings(config, timings)
    return {
        "profiles": [str(planned) for planned in profiles],
        "engine_bytes": path.stat().st_size,
        **notes,
        **write_layers(path, options, log),
        **watch.notes(),
        "peak_allocator_bytes": log.peak_bytes,
        "log": log.lines(),
    }


def _builder(log: Log, spec: BuildSpec, free: int) -> trt.Builder:
    try:
        return trt.Builder(log)
    except TypeError:
        # What its binding makes of no builder; the log has why.
        raise _failure(log, spec, free) from None


def _add_profile(
    builder: trt.Builder, config: trt.IBuilderConfig, sizes: Mapping[str, tuple[Sizes, Sizes, Sizes]], log: Log
) -> None:
    profile = builder.create_optimization_profile()
    for name, (low, best, high) in sizes.items():
        profile.set_shape(name, low, best, high)
    if config.add_optimization_profile(profile) < 0:
        raise RuntimeError(f"TensorRT refuses the profile {dict(sizes)}: {log.last_error()}")


def _network_flags(options: Mapping[str, Any]) -> int:
    flags = 0
    if can.explicit_batch:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    if can.strong_typing and options["types"] == "graph":
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return flags


def _configured(builder: trt.Builder, options: Mapping[str, Any]) -> trt.IBuilderConfig:
    config = builder.create_builder_config()
    if options["workspace_mb"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options["workspace_mb"] << 20)
    config.builder_optimization_level = options["optimization_level"]
    config.profiling_verbosity = getattr(trt.ProfilingVerbosity, options["verbosity"].upper())
    if options["aux_streams"] >= 0:
        config.max_aux_streams = options["aux_streams"]
    if options.get("timing_iterations"):
        config.avg_timing_iterations = options["timing_iterations"]
    if options["hardware_compatible"]:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options["refit"]:
        config.set_flag(trt.BuilderFlag.REFIT)
    chosen = options["tactic_sources"]
    if chosen and not config.set_tactic_sources(_tactic_sources(chosen)):
        raise Unsupported(f"this release does not take trt.tactic_sources={chosen}")
    return config


def _tactic_sources(names: list[str]) -> int:
    """The bits of `names`; "none" is no source at all."""
    known = trt.TacticSource.__members__
    for name in names:
        if name != "none" and name.upper() not in known:
            raise Unsupported(f"trt.tactic_sources has {name}; this release has none, {', '.join(known).lower()}")
    return sum(1 << int(known[name.upper()]) for name in names if name != "none")


def _short_of_memory(log: Log) -> bool:
    return any(SHORT_OF_MEMORY.search(message) for message in log.errors)


def _failure(log: Log, spec: BuildSpec, free: int) -> Exception:
    """Why nothing was built, by TensorRT's own errors and the bytes that were free before."""
    errors = [message.strip().replace("\n", " ") for message in log.errors] or ["TensorRT gave no reason"]
    text = f"{errors[0]}{f' ... {errors[-1]}' if len(errors) > 1 else ''}"
    if free < SCARCE or _short_of_memory(log):
        return RuntimeError(
            f"too little GPU memory to build, of which {free >> 20} MiB were free: free some, set trt.workspace_mb, or "
            f"ask for smaller shapes ({text})"
        )
    if "libnvinfer_lean" in text:
        return Unavailable(
            f"version-compatible plans bring TensorRT's lean runtime along, which was not found: install tensorrt-lean "
            f"{trt.__version__} beside it, or leave trt.version_compatible out ({text})"
        )
    if spec.quantization.get("scheme") == "implicit":
        return Unsupported(f"this release cannot calibrate the graph: use quantization.scheme=explicit ({text})")
    return RuntimeError(f"TensorRT could not build the engine: {text}")
