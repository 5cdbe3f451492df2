"""Export of a TensorRT plan: the plan that was measured, byte for byte, and the plugin libraries that it needs.

It needs no GPU, so a plan of another GPU can be exported too.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import asdict
from pathlib import Path

from backends.base import BuildSpec, Feeds, Unavailable
from backends.deployment import Deployed, Deployment, TensorInfo
from backends.inputs.samples import Arrange, ArrangedInputs
from backends.model_output import HIDDEN
from backends.profiles import Profile, plan_profiles
from backends.tensorrt_.run_plan import Settings
from backends.tensorrt_.runtime.installation import DISTRIBUTIONS, RTX_DISTRIBUTIONS
from backends.tensorrt_.runtime.layout import Layout, Rows
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions
from backends.tensorrt_.tensorrt_backend import TensorRTBackend

FILE = "model.plan"


def deploy_plan(deployment: Deployment) -> tuple[Deployed, Arrange]:
    """Copy the plan and its plugin libraries."""
    spec, backend, artifact = deployment.spec, deployment.backend, deployment.artifact
    assert isinstance(backend, TensorRTBackend)
    layout = backend.layout(spec) or Rows(deployment.names)
    shutil.copyfile(artifact.path, deployment.folder / FILE)
    options = spec.options_as(TensorRTOptions)
    libraries = [Path(path) for path in options.plugin_libraries]
    for library in libraries:
        shutil.copyfile(library, deployment.folder / library.name)
    package, version = next(
        ((name, artifact.versions[name]) for name in DISTRIBUTIONS if name in artifact.versions), ("tensorrt", "")
    )
    profiles = plan_profiles(spec.shapes, options)
    settings: Settings = {
        "module": "tensorrt_rtx" if package in RTX_DISTRIBUTIONS else "tensorrt",
        "file": FILE,
        "plugin_libraries": [library.name for library in libraries],
        "host_code": bool(options.version_compatible),
        "built_for": f"{package} {version} on {spec.device.name}",
    }
    deployed = Deployed(
        runtime=(package, version),
        packages=(f"{package}=={version}", "cuda-python", "numpy"),
        files=(FILE, *(library.name for library in libraries)),
        settings=settings,
        inputs=tuple(TensorInfo(name, "int32", _axes(layout, name, profiles)) for name in layout.sizes(profiles[0])),
        outputs=(_output(backend, spec, packed=not isinstance(layout, Rows)),),
        profiles=tuple(_profile(profile) for profile in profiles),
        notes={"gpu": spec.device.name, "driver": spec.device.driver},
    )
    return deployed, lambda feeds: _arranged(layout, feeds)


def _output(backend: TensorRTBackend, spec: BuildSpec, packed: bool) -> TensorInfo:
    """Return the output of a plan. A plan of an ONNX graph has the name of the graph's output and its type."""
    if packed:
        axes = ("tokens" if spec.output.per_token else "batch", "features")
        return TensorInfo("the only output", "float", axes)
    name = "last_hidden_state" if spec.output.kind == HIDDEN else spec.output.kind
    types = {"fp16": "float16", "bf16": "bfloat16"}
    dtype = "float"
    with contextlib.suppress(Unavailable):  # a plan of another GPU, on a machine without TensorRT
        dtype = types.get(backend.source_form(spec).types, dtype)
    return TensorInfo(name, dtype, ("batch", *(("sequence",) if spec.output.per_token else ()), "features"))


def _axes(layout: Layout, name: str, profiles: tuple[Profile, ...]) -> tuple[str, ...]:
    """Return for each axis of an input its size, or its smallest and largest size as "1..8"."""
    sizes = [layout.sizes(profile)[name] for profile in profiles]
    smallest = [min(axis) for axis in zip(*(size[0] for size in sizes), strict=True)]
    largest = [max(axis) for axis in zip(*(size[2] for size in sizes), strict=True)]
    return tuple(str(low) if low == high else f"{low}..{high}" for low, high in zip(smallest, largest, strict=True))


def _profile(profile: Profile) -> dict[str, object]:
    return {name: list(asdict(getattr(profile, name)).values()) for name in ("min", "opt", "max")}


def _arranged(layout: Layout, feeds: Feeds) -> ArrangedInputs:
    """Return a batch in the layout of the plan. The layout itself gives the row of each token in the output."""
    arranged = layout.arrange(feeds)
    return ArrangedInputs(arranged.arrays, arranged.places())
