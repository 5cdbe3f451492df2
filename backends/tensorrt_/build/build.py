"""Build a plan from a network: configure the builder, add profiles, build, and describe the result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import BuildSpec, Unavailable, Unsupported
from backends.cuda import free_memory, use_device
from backends.profiles import Profile, plan_profiles
from backends.tensorrt_.build.build_limits import LimitedThread, limited_thread
from backends.tensorrt_.build.build_target import BuildTarget, DefineNetwork
from backends.tensorrt_.build.durations import BuildKind, durations_path, estimated_seconds, note_seconds
from backends.tensorrt_.build.inspection import write_layers
from backends.tensorrt_.build.logged_layers import write_logged_layers
from backends.tensorrt_.build.plan_check import find_faults
from backends.tensorrt_.build.progress import BuildMonitor, monitor
from backends.tensorrt_.build.timing_cache import load_timings, save_timings, timing_cache_path
from backends.tensorrt_.runtime.layout import Sizes
from backends.tensorrt_.runtime.loading import load_plugins
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.target import builds_without_gpu, target_of
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions, Types

if TYPE_CHECKING:
    import tensorrt as trt

SCARCE_MEMORY = 2 << 30
"""Bytes of free device memory below which a failed build is attributed to too little memory. The builder, cuBLAS and
cuDNN need about 1 GB before any tensor. Without that memory TensorRT reports different errors, and not all of them
mention memory."""

EARLY_MEMORY = 2 * SCARCE_MEMORY
"""Bytes of free device memory below which a builder does not start while another process uses the device."""

SHORT_OF_MEMORY = re.compile(r"out ?of ?memory|insufficient memory|memoryallocation|could not be allocated", re.I)
"""Error messages of TensorRT and CUDA about too little memory. The pattern is not "memory" alone, because an illegal
memory access is a different error."""


STARTING, DEFINING, BUILDING = "starting the builder", "defining the network", "building"
"""Phases of a build. TensorRT times tactics and makes the plan in BUILDING."""


@dataclass(frozen=True)
class StartedBuilder:
    """Builder without a network.

    Attributes:
        log: messages of the builder.
        limited: context for calls of the builder.
        monitor: cost of an early start; None if the builder started in its build.
    """

    builder: trt.Builder
    log: Log
    limited: LimitedThread
    monitor: BuildMonitor | None = None


def start_early(api: TensorRTApi, spec: BuildSpec) -> StartedBuilder:
    """Start the builder of a build that comes later, while another process uses the device.

    Raises:
        Unavailable: the other process may need the memory of the device.
        Unsupported, RuntimeError: as in `build_plan`.
    """
    opens = not builds_without_gpu(spec)
    free = _free_memory_of(spec.device.index) if opens else EARLY_MEMORY
    if free < EARLY_MEMORY:
        raise Unavailable(f"{free >> 20} MiB of GPU memory are free, so the builder does not start during the export")
    with BuildMonitor(STARTING, on_gpu=opens) as monitor:
        started = _started(api, spec, free)
    return replace(started, monitor=monitor)


def build_plan(
    api: TensorRTApi, spec: BuildSpec, path: Path, define: DefineNetwork, early: StartedBuilder | None = None
) -> Mapping[str, object]:
    """Build the network that `define` creates, and write the plan to `path` and its layers next to it.

    `early` is a builder of `start_early` in this process.

    Returns:
        Notes for the record: profiles, sizes in bytes, layers, time by phase, and the log.

    Raises:
        Unsupported: this release cannot read or quantize a part of the network.
        Unavailable: TensorRT's lean runtime is needed but not installed.
        RuntimeError: the build failed. The message has TensorRT's first error and, where known, a fix.
    """
    options, opens = spec.options_as(TensorRTOptions), not builds_without_gpu(spec)
    free = _free_memory_of(spec.device.index) if opens else SCARCE_MEMORY
    with BuildMonitor(DEFINING if early else STARTING, on_gpu=opens) as watch:
        started = early or _started(api, spec, free)
        if early is None:
            watch.enter(DEFINING)
        target = _empty_target(api, started.builder, spec, started.log)
        config, log = target.config, target.log
        monitor(api, config, watch, log)
        profiles, notes = _defined(target, spec, define)
        timings = timing_cache_path(spec, api.version)
        warm, durations = api.can.timings and load_timings(config, timings), durations_path(timings)
        kind = BuildKind(spec.precision, target.network.num_layers, len(profiles), options.optimization_level, warm)

        def build(phase: str) -> tuple[trt.IHostMemory | None, bool]:
            """Return the plan, and whether a second build would not help."""
            watch.enter(phase, estimated_seconds(durations, kind))
            if (plan := _serialized(target, started.limited)) is None:
                return plan, True
            watch.enter("opening what was built")
            path.write_bytes(memoryview(plan))
            errors = find_faults(path, options, spec.device.index) if opens else []
            log.errors += errors
            return plan, not errors or _short_of_memory(log)

        plan, settled = build(BUILDING)
        if not settled:
            # The timings of the tactics led to this plan: discard them and time all tactics again.
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
            plan, settled = build("building again, because TensorRT cannot open the first plan")
        if not settled:
            raise RuntimeError(f"TensorRT built the engine twice and could not open it: {log.last_error()}")
        if plan is None or _short_of_memory(log):
            raise _failure(api, log, spec, free)
        _keep_times(target, timings, kind, watch.seconds_in(BUILDING))
    return {
        "profiles": [str(profile) for profile in profiles],
        "engine_bytes": path.stat().st_size,
        **notes,
        **(write_layers if opens else write_logged_layers)(api, path, options, log),
        **watch.notes(started.monitor),
        "peak_allocator_bytes": log.peak_bytes,
        "log": log.lines(),
    }


def _defined(
    target: BuildTarget, spec: BuildSpec, define: DefineNetwork
) -> tuple[tuple[Profile, ...], Mapping[str, object]]:
    """Define the network and add its profiles. Return the profiles, and notes for the record."""
    layout, notes = define(target)
    profiles = plan_profiles(spec.shapes, spec.options_as(TensorRTOptions))
    _add_profiles(target, [layout.sizes(profile) for profile in profiles])
    return profiles, notes


def _free_memory_of(device: int) -> int:
    """Make a device the current one, and return its free memory in bytes."""
    use_device(device)
    return free_memory()


def _keep_times(target: BuildTarget, path: Path, kind: BuildKind, seconds: float) -> None:
    """Keep the timings of tactics in `path`, and the seconds of the build next to it."""
    if target.api.can.timings:
        save_timings(target.config, path)
    note_seconds(durations_path(path), kind, seconds)


def _started(api: TensorRTApi, spec: BuildSpec, free: int) -> StartedBuilder:
    """Load the plugins and start a builder."""
    trt, log = api.trt, Log(api)
    load_plugins(api, spec.options_as(TensorRTOptions), log)
    limited = limited_thread(spec)
    try:
        with limited():
            return StartedBuilder(trt.Builder(log.logger), log, limited)
    except TypeError:
        # The Python binding raises TypeError if TensorRT creates no builder. The log has the reason.
        raise _failure(api, log, spec, free) from None


def _serialized(target: BuildTarget, limited: LimitedThread) -> trt.IHostMemory | None:
    """Time tactics and return the plan; None if the build failed."""
    with limited():
        return target.builder.build_serialized_network(target.network, target.config)


def _empty_target(api: TensorRTApi, builder: trt.Builder, spec: BuildSpec, log: Log) -> BuildTarget:
    trt, can, options = api.trt, api.can, spec.options_as(TensorRTOptions)
    network = builder.create_network(_network_flags(api, options))
    config = _builder_config(api, builder, options)
    if can.named_targets and (name := target_of(options, spec.device).name) != "portable":
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, name.upper()), 0)
    return BuildTarget(api, builder, network, config, log)


def _add_profiles(target: BuildTarget, profiles: Sequence[Mapping[str, tuple[Sizes, Sizes, Sizes]]]) -> None:
    for sizes in profiles:
        optimization_profile = target.builder.create_optimization_profile()
        for name, (min_sizes, opt_sizes, max_sizes) in sizes.items():
            optimization_profile.set_shape(name, min_sizes, opt_sizes, max_sizes)
        if target.config.add_optimization_profile(optimization_profile) < 0:
            raise RuntimeError(f"TensorRT refuses the profile {dict(sizes)}: {target.log.last_error()}")


def _network_flags(api: TensorRTApi, options: TensorRTOptions) -> int:
    trt, can = api.trt, api.can
    flags = 0
    if can.explicit_batch:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    if can.strong_typing and options.types is Types.graph:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return flags


def _builder_config(api: TensorRTApi, builder: trt.Builder, options: TensorRTOptions) -> trt.IBuilderConfig:
    trt, can = api.trt, api.can
    config = builder.create_builder_config()
    if options.workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = getattr(trt.ProfilingVerbosity, options.verbosity.name.upper())
    if options.aux_streams >= 0:
        config.max_aux_streams = options.aux_streams
    if options.timing_iterations:
        config.avg_timing_iterations = options.timing_iterations
    if options.builder_threads:
        builder.max_threads = options.builder_threads
    if options.tactic_heuristic:
        if not can.tactic_heuristic:
            raise Unsupported("trt.tactic_heuristic needs TensorRT 8.6; use a lower trt.optimization_level")
        config.set_flag(trt.BuilderFlag.ENABLE_TACTIC_HEURISTIC)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if options.share_engine and can.profile_sharing:
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    sources = options.tactic_sources
    if sources and not config.set_tactic_sources(_tactic_sources(api, sources)):
        raise Unsupported(f"this release does not accept trt.tactic_sources={sources}")
    return config


def _tactic_sources(api: TensorRTApi, names: list[str]) -> int:
    """Return the bit mask of the tactic sources in `names`; "none" sets no bit."""
    trt = api.trt
    sources = trt.TacticSource.__members__
    for name in names:
        if name != "none" and name.upper() not in sources:
            raise Unsupported(
                f"trt.tactic_sources has {name}, which this release does not have; "
                f"choose from none, {', '.join(sources).lower()}"
            )
    return sum(1 << int(sources[name.upper()]) for name in names if name != "none")


def _short_of_memory(log: Log) -> bool:
    return any(SHORT_OF_MEMORY.search(message) for message in log.errors)


def _failure(api: TensorRTApi, log: Log, spec: BuildSpec, free: int) -> Exception:
    """Return the exception for a failed build, from TensorRT's errors and the bytes `free` before the build."""
    errors = [message.strip().replace("\n", " ") for message in log.errors] or ["TensorRT gave no reason"]
    text = f"{errors[0]}{f' ... {errors[-1]}' if len(errors) > 1 else ''}"
    if free < SCARCE_MEMORY or _short_of_memory(log):
        return RuntimeError(
            f"too little GPU memory to build: {free >> 20} MiB were free; free some, set trt.workspace_mb, or "
            f"request smaller shapes ({text})"
        )
    if "libnvinfer_lean" in text:
        return Unavailable(
            f"version-compatible plans contain TensorRT's lean runtime, which was not found: install tensorrt-lean "
            f"{api.version} in the same Python, or set trt.version_compatible=false ({text})"
        )
    if not spec.quantization.explicit:
        return Unsupported(f"this release cannot calibrate the graph: use quantization.scheme=explicit ({text})")
    return RuntimeError(f"TensorRT could not build the engine: {text}")
