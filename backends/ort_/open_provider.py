"""Open an onnxruntime session with an execution provider, and read which provider runs each node."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Unavailable
from backends.ort_.description import Provider
from backends.ort_.providers import (
    CUDA,
    PROVIDERS,
    ProviderFacts,
    ProviderSetup,
    tensorrt_folder,
    tensorrt_major,
)

if TYPE_CHECKING:
    import onnxruntime

RECORD_NODES = "session.record_ep_graph_assignment_info"
"""Key of onnxruntime's session configuration that makes it keep the provider of each node."""


def open_provider(
    path: Path, options: onnxruntime.SessionOptions, setup: ProviderSetup, device: int
) -> onnxruntime.InferenceSession:
    """Open the model at `path` with the provider of `setup`.

    Args:
        device: index of the device among those of a provider from a plugin package.

    Raises:
        Unavailable: onnxruntime does not load the provider, and would use another one.
    """
    import onnxruntime

    facts = setup.facts
    if facts.device == "cuda":
        onnxruntime.preload_dlls()
    if facts == PROVIDERS[Provider.tensorrt]:
        _load_tensorrt()
    if facts == PROVIDERS[Provider.openvino]:
        # OpenVINO optimizes the graph itself; its documentation advises to turn onnxruntime's optimizations off.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if facts.plugin and find_spec(facts.plugin):
        options.add_provider_for_devices([_plugin_device(facts, device)], setup.options)
        if setup.fallback is not None:
            options.add_provider(CUDA, setup.fallback)
        session = onnxruntime.InferenceSession(str(path), options)
    else:
        own = {"device_type": "CPU", **setup.options} if facts == PROVIDERS[Provider.openvino] else setup.options
        providers = [(facts.name, own), *([] if setup.fallback is None else [(CUDA, setup.fallback)])]
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    if facts.name not in session.get_providers():
        short, kind = facts.name.removesuffix("ExecutionProvider"), "CUDA and cuDNN " if facts.device == "cuda" else ""
        raise Unavailable(
            f"onnxruntime could not load its {short} provider and would run on the CPU; "
            f"install the {kind}libraries that its release needs, see the log"
        )
    return session


def _plugin_device(facts: ProviderFacts, device: int) -> onnxruntime.OrtEpDevice:
    """Register the library of a plugin package, once for each process, and return its device.

    Raises:
        Unavailable: the library does not load, or it has no such device.
    """
    import onnxruntime

    wanted = "GPU" if facts.device == "cuda" else "CPU"
    try:
        _register(facts.name, facts.plugin)
    except Exception as error:  # the errors of onnxruntime have no common class
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise Unavailable(f"onnxruntime cannot load {facts.packages[0]}: {first}; see the log") from None
    found = [
        item for item in onnxruntime.get_ep_devices() if item.ep_name == facts.name and item.device.type.name == wanted
    ]
    number = device if facts.device == "cuda" else 0
    if number >= len(found):
        raise Unavailable(
            f"{facts.packages[0]} finds {len(found)} {wanted}s that it supports here, and number {number} is needed; "
            "use another provider or device, and see the log"
        )
    return found[number]


@cache
def _register(name: str, plugin: str) -> None:
    """Register the library of a plugin package. A library may find no device, and cannot be registered twice."""
    import onnxruntime

    if not any(found.ep_name == name for found in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(name, str(import_module(plugin).get_library_path()))


def _load_tensorrt() -> None:
    """Load the libraries of TensorRT from its Python package, where onnxruntime does not look for them."""
    major = tensorrt_major()
    folder = tensorrt_folder(major)
    if folder is not None:
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            ctypes.CDLL(str(folder / f"lib{name}.so.{major}"), ctypes.RTLD_GLOBAL)


def nodes_by_provider(
    sessions: Sequence[onnxruntime.InferenceSession], provider: str
) -> tuple[dict[str, int], list[str]]:
    """Return the number of nodes by name of their provider, and the operators that `provider` leaves to others.

    Args:
        sessions: sessions of one model, which differ in their profiles and were opened with RECORD_NODES. The one with
            the most nodes outside `provider` counts.
    """
    placements = [_placement(session, provider) for session in sessions]
    return max(placements, key=lambda placed: sum(placed[0].values()) - placed[0].get(provider, 0))


def _placement(session: onnxruntime.InferenceSession, provider: str) -> tuple[dict[str, int], list[str]]:
    nodes: Counter[str] = Counter()
    operators: set[str] = set()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
        if part.ep_name != provider:
            operators |= {node.op_type for node in part.get_nodes()}
    return dict(nodes), sorted(operators)
