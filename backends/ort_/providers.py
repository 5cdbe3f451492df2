"""Execution providers of onnxruntime: their names, packages and options.

The names of options are those of the provider libraries; see tests/ort_/test_providers.py. All values are texts. The
TensorRT provider reads its switches as "True" and "False", and the others as "1" and "0".
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from backends.base import BuildSpec, versions_of
from backends.ort_.description import OrtOptions, Provider
from backends.profiles import Profile

INSTALLED = ("onnxruntime-gpu", "onnxruntime", "onnxruntime-openvino")
"""Distributions of onnxruntime itself."""

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class ProviderFacts:
    """Facts about an execution provider.

    Attributes:
        name: its name in onnxruntime.
        device: kind of device that it runs on: "cpu" or "cuda".
        packages: distributions that contain it, any of them. The first one is the advice.
        plugin: Python module of the package that adds it to onnxruntime; empty for a provider of onnxruntime itself.
    """

    name: str
    device: str
    packages: tuple[str, ...]
    plugin: str = ""


PROVIDERS = {
    Provider.cpu: ProviderFacts(CPU, "cpu", INSTALLED),
    Provider.cuda: ProviderFacts(CUDA, "cuda", ("onnxruntime-gpu",)),
    Provider.tensorrt: ProviderFacts("TensorrtExecutionProvider", "cuda", ("onnxruntime-gpu",)),
    Provider.nv_tensorrt_rtx: ProviderFacts(
        "NvTensorRTRTXExecutionProvider",
        "cuda",
        ("onnxruntime-ep-nv-tensorrt-rtx-cu13", "onnxruntime-ep-nv-tensorrt-rtx-cu12"),
        "onnxruntime_ep_nv_tensorrt_rtx",
    ),
    Provider.openvino: ProviderFacts(
        "OpenVINOExecutionProvider",
        "cpu",
        ("onnxruntime-ep-openvino", "onnxruntime-openvino"),
        "onnxruntime_ep_openvino",
    ),
}

PACKAGES = tuple(name for facts in PROVIDERS.values() for name in facts.packages if name not in INSTALLED)
"""Distributions of providers that are not part of onnxruntime."""

TENSORRT_LIBRARIES = ("tensorrt-cu13-libs", "tensorrt-cu12-libs", "tensorrt-libs")
"""Distributions with the libraries of TensorRT."""

RTX_CAPABILITIES = ((8, 6), (8, 9))
"""Compute capabilities of the TensorRT-RTX provider below RTX_NEWEST, as its library says."""

RTX_NEWEST = (12, 0)
"""All compute capabilities from this one on are supported."""


def provider_of(spec: BuildSpec) -> Provider:
    """Return the provider of a cell, with auto resolved."""
    chosen = spec.options_as(OrtOptions).provider
    if chosen is not Provider.auto:
        return chosen
    return Provider.cuda if spec.device.kind == "cuda" else Provider.cpu


def tensorrt_major() -> str:
    """Return the major release of TensorRT that onnxruntime's provider needs, such as "10"; empty if unknown."""
    package = find_spec("onnxruntime")
    folders = list(package.submodule_search_locations or ()) if package else []
    for library in (Path(folder) / "capi" / "libonnxruntime_providers_tensorrt.so" for folder in folders):
        if library.is_file() and (needed := re.search(rb"libnvinfer\.so\.(\d+)", library.read_bytes())):
            return needed[1].decode()
    return ""


def tensorrt_folder(major: str) -> Path | None:
    """Return the folder with libnvinfer of that release from a Python package; None if there is none."""
    if not any(version.partition(".")[0] == major for version in versions_of(TENSORRT_LIBRARIES).values()):
        return None
    package = find_spec("tensorrt_libs")
    folders = [Path(folder) for folder in package.submodule_search_locations or ()] if package else []
    return next((folder for folder in folders if (folder / f"libnvinfer.so.{major}").is_file()), None)


@dataclass(frozen=True)
class ProviderSetup:
    """Provider of a session with its options, and the options of the CUDA provider for nodes that it leaves.

    Attributes:
        fallback: None without a GPU. The CPU provider always comes last.
    """

    facts: ProviderFacts
    options: dict[str, str] = field(default_factory=dict)
    fallback: dict[str, str] | None = None


@dataclass(frozen=True)
class EnginePlace:
    """Profile of an engine, names of its inputs, and folders of the cache for its files."""

    profile: Profile
    inputs: tuple[str, ...]
    engines: Path
    timings: Path
    kernels: Path


def setup_of(spec: BuildSpec, stream: int, graph: bool, place: EnginePlace | None) -> ProviderSetup:
    """Return the provider of a session and its options.

    Args:
        stream: handle of the CUDA stream; 0 on a CPU.
        graph: whether CUDA graphs are enabled.
        place: for providers that compile an engine, else None.
    """
    provider = provider_of(spec)
    facts = PROVIDERS[provider]
    if provider is Provider.cpu:
        return ProviderSetup(facts)
    if provider is Provider.openvino:
        return ProviderSetup(facts, _openvino(spec))
    device, switch = str(spec.device.index), "1" if graph else "0"
    on_stream = {"device_id": device, "user_compute_stream": str(stream)}
    tf32 = {"use_tf32": "1" if spec.precision == "tf32" else "0"}
    if provider is Provider.cuda:
        return ProviderSetup(facts, {**on_stream, **tf32, "enable_cuda_graph": switch})
    assert place is not None
    if provider is Provider.tensorrt:
        own = {"device_id": device, **_tensorrt(spec, graph, place)}
    else:
        own = _rtx(spec, switch, place)  # the session gets the device itself
    streamed = {"user_compute_stream": str(stream), "has_user_compute_stream": "1"}
    return ProviderSetup(facts, {**streamed, **own}, {**on_stream, **tf32})


def _tensorrt(spec: BuildSpec, graph: bool, place: EnginePlace) -> dict[str, str]:
    """Return options of the TensorRT provider. Layers without Q/DQ of an INT8 graph may use FP16, as in backend trt."""
    options = spec.options_as(OrtOptions)
    switches = {
        "trt_fp16_enable": spec.precision in ("fp16", "int8"),
        "trt_bf16_enable": spec.precision == "bf16",
        "trt_int8_enable": spec.precision == "int8",
        "trt_engine_cache_enable": True,
        "trt_timing_cache_enable": True,
        "trt_cuda_graph_enable": graph,
    }
    return {
        **{name: str(value) for name, value in switches.items()},
        "trt_engine_cache_path": str(place.engines),
        "trt_timing_cache_path": str(place.timings),
        "trt_builder_optimization_level": str(options.optimization_level),
        **({"trt_max_workspace_size": str(options.workspace_mb << 20)} if options.workspace_mb else {}),
        **_profile_options("trt", place),
    }


def _rtx(spec: BuildSpec, graph: str, place: EnginePlace) -> dict[str, str]:
    """Return options of the TensorRT-RTX provider. It takes the types from the graph."""
    workspace = spec.options_as(OrtOptions).workspace_mb
    return {
        "enable_cuda_graph": graph,
        "nv_runtime_cache_path": str(place.kernels),
        **({"nv_max_workspace_size": str(workspace << 20)} if workspace else {}),
        **_profile_options("nv", place),
    }


def _profile_options(prefix: str, place: EnginePlace) -> dict[str, str]:
    profile = place.profile
    shapes = {"min": profile.min, "opt": profile.opt, "max": profile.max}
    return {
        f"{prefix}_profile_{kind}_shapes": ",".join(f"{name}:{shape}" for name in place.inputs)
        for kind, shape in shapes.items()
    }


def _openvino(spec: BuildSpec) -> dict[str, str]:
    """Return options of the OpenVINO provider: one request at a time.

    The type is named because OpenVINO computes FP32 graphs in BF16 on a CPU that has it. The provider's own option
    `precision` does not prevent that in onnxruntime-ep-openvino 1.8.1.
    """
    threads = {"num_of_threads": str(spec.threads)} if spec.threads else {}
    types = {"INFERENCE_PRECISION_HINT": "bf16" if spec.precision == "bf16" else "f32"}
    return {"num_streams": "1", **threads, "load_config": json.dumps({"CPU": types})}


def nodes_elsewhere(nodes: dict[str, int], provider: Provider) -> int:
    """Return how many of the nodes, by name of their provider, are not on `provider`."""
    return sum(count for name, count in nodes.items() if name != PROVIDERS[provider].name)


def advice(packages: Sequence[str]) -> str:
    """Return the command that installs the first of the packages, and the names of the others."""
    first, *others = packages
    return f"pip install {first}{f' (or {others[0]})' if others else ''}"
