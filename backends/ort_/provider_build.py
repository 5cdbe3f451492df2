"""Artifact of a cell that names its execution provider: the graph, its engines, and which provider runs each node."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Artifact, BuildSpec, Opening, Shape, versions_of
from backends.cache import TIMINGS, ArtifactCache, key_digest
from backends.cache_files import locked, make_private_folder
from backends.json_codec import from_json
from backends.onnx_ import onnx_files
from backends.ort_.description import ENGINE_PROVIDERS, OrtOptions, Provider
from backends.ort_.open_provider import RECORD_NODES, nodes_by_provider, open_provider
from backends.ort_.ort_session import OrtSession, SessionSettings, session_options
from backends.ort_.providers import (
    INSTALLED,
    PACKAGES,
    PROVIDERS,
    TENSORRT_LIBRARIES,
    EnginePlace,
    nodes_elsewhere,
    provider_of,
    setup_of,
)
from backends.profiled_sessions import ProfiledSessions
from backends.profiles import Profile, plan_profiles

if TYPE_CHECKING:
    import onnxruntime

    from backends.cuda import CudaStream

ENGINES, KERNELS = "engines", "runtime"
"""Folder of engines next to the graph, and folder of the cache with kernels that TensorRT-RTX compiles in sessions."""

GRAPH_KEYS = ("gpu_graph_id", "cuda_graph_annotation_id")
"""Options of a run that select a CUDA graph: that of onnxruntime and that of the TensorRT-RTX provider."""


def build_with_provider(spec: BuildSpec, graph: Artifact) -> Artifact:
    """Open the graph once with the provider of the cell, which compiles its engines, and count the nodes by provider.

    Returns:
        A copy of the graph with its engines next to it. The notes have the provider, the nodes by provider, the
        operators that it leaves to others, and the profiles.
    """
    provider, options = provider_of(spec), spec.options_as(OrtOptions)
    profiles = _profiles(spec)
    key: dict[str, object] = {"graph": graph.sha256, "provider": provider.name, "precision": spec.precision}
    if profiles:
        key |= {
            "profiles": [profile.to_json() for profile in profiles],
            "optimization_level": options.optimization_level,
            "workspace_mb": options.workspace_mb,
        }
    if spec.device.kind == "cuda":
        key |= {"gpu": [spec.device.name, list(spec.device.compute_capability)], "driver": spec.device.driver}

    def build(path: Path) -> Mapping[str, object]:
        onnx_files.copy(graph.path, path)
        inputs = tuple(value.name for value in onnx_files.graph_of(path).input)
        with locked(_timings(spec) / ".lock"):
            nodes, operators = _opened_once(spec, path, inputs, profiles)
        notes: dict[str, object] = {
            "provider": PROVIDERS[provider].name,
            "nodes_by_provider": nodes,
            "operators_elsewhere": operators,
        }
        if profiles:
            notes |= {"inputs": list(inputs), "profiles": [str(profile) for profile in profiles]}
        if engines := list((path.parent / ENGINES).rglob("*.engine")):
            notes["engine_bytes"] = sum(engine.stat().st_size for engine in engines)
        return notes

    versions = versions_of((*INSTALLED, *PACKAGES, *TENSORRT_LIBRARIES))
    artifact = ArtifactCache(spec.cache).get("ort_provider", key, graph.path.name, build, versions)
    return replace(artifact, notes={**graph.notes, **artifact.notes})


def opening(spec: BuildSpec, artifact: Artifact) -> Opening:
    """Open a session of an artifact of `build_with_provider`, or one for each of its profiles."""
    provider, stream = provider_of(spec), _stream(spec)
    nodes = from_json(dict[str, int], artifact.notes["nodes_by_provider"], "nodes_by_provider")
    elsewhere = nodes_elsewhere(nodes, provider) if provider in ENGINE_PROVIDERS else 0
    settings = SessionSettings(
        stream,
        spec.cuda_graph and not elsewhere,
        f"{elsewhere} nodes are not on {PROVIDERS[provider].name}, and a CUDA graph needs all" if elsewhere else "",
        GRAPH_KEYS if provider is Provider.nv_tensorrt_rtx else GRAPH_KEYS[:1],
        binds_copies=bool(PROVIDERS[provider].plugin),
    )
    _set_tf32(spec)
    if not (profiles := _profiles(spec)):
        yield "load", OrtSession(spec, artifact.path, settings)
        return
    inputs = from_json(tuple[str, ...], artifact.notes["inputs"], "inputs")
    sessions = []
    for number, profile in enumerate(profiles):
        place = _place(spec, artifact.path, inputs, number)
        sessions.append(OrtSession(spec, artifact.path, replace(settings, place=place)))
        yield f"profile {profile}", None
    pairs = [(session, (profile,)) for session, profile in zip(sessions, profiles, strict=True)]
    yield "sessions", sessions[0] if len(sessions) == 1 else ProfiledSessions(pairs, "session")


def _profiles(spec: BuildSpec) -> tuple[Profile, ...]:
    """Return the profiles of a cell, each of which gets its own engine; none for providers without engines."""
    if provider_of(spec) not in ENGINE_PROVIDERS:
        return ()
    return plan_profiles(spec.shapes, spec.options_as(OrtOptions), "ort")


def _stream(spec: BuildSpec) -> CudaStream | None:
    if spec.device.kind != "cuda":
        return None
    from backends.cuda import CudaStream

    return CudaStream(spec.device.index)


def _set_tf32(spec: BuildSpec) -> None:
    """Prevent TF32 in engines of FP32. Providers of TensorRT have no option for it, and TensorRT uses it by default."""
    if provider_of(spec) in ENGINE_PROVIDERS and spec.precision == "fp32":
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"


def _opened_once(
    spec: BuildSpec, path: Path, inputs: tuple[str, ...], profiles: tuple[Profile, ...]
) -> tuple[dict[str, int], list[str]]:
    """Open and run a session for each profile, or one; return the nodes by provider and the operators elsewhere."""
    _set_tf32(spec)
    stream, opened = _stream(spec), []
    handle = int(stream.handle) if stream is not None else 0
    for number in range(max(1, len(profiles))):
        place = _place(spec, path, inputs, number) if profiles else None
        options = session_options(spec)
        options.add_session_config_entry(RECORD_NODES, "1")
        setup = setup_of(spec, handle, False, place)
        session = open_provider(path, options, setup, spec.device.index)
        _run(session, place.profile.max if place else min(spec.shapes))
        opened.append(session)
    return nodes_by_provider(opened, PROVIDERS[provider_of(spec)].name)


def _run(session: onnxruntime.InferenceSession, shape: Shape) -> None:
    """Run a session once. A provider may compile its engine only then."""
    ones = np.ones((shape.batch, shape.sequence), np.int32)
    session.run(None, {value.name: ones for value in session.get_inputs()})


def _place(spec: BuildSpec, path: Path, inputs: tuple[str, ...], number: int) -> EnginePlace:
    """Return the profile with that number, and the folders of its files, which it creates."""
    profile = _profiles(spec)[number]
    name = key_digest({"graph": path.parent.name, "profile": profile.to_json()})[:24]
    place = EnginePlace(
        profile, inputs, path.parent / ENGINES / str(number), _timings(spec), spec.cache / KERNELS / f"ort-{name}"
    )
    for folder in (place.engines, place.kernels):
        make_private_folder(folder)
    return place


def _timings(spec: BuildSpec) -> Path:
    """Return the folder of the timings of tactics of a GPU, driver and release, and create it."""
    versions = versions_of((*INSTALLED, *TENSORRT_LIBRARIES))
    key = {"gpu": spec.device.name, "driver": spec.device.driver, "versions": dict(versions)}
    folder = spec.cache / TIMINGS / f"ort-{key_digest(key)[:24]}"
    make_private_folder(folder)
    return folder
