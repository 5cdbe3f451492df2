"""Cached engines, for networks from an ONNX file and for networks of plugins."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from backends.base import Artifact, BuildSpec, versions_of
from backends.cache import ArtifactCache, digest_of
from backends.config_key import cell_mapping
from backends.json_codec import from_json
from backends.profiles import plan_profiles
from backends.tensorrt_.runtime.installation import PACKAGES
from backends.tensorrt_.runtime.tensorrt_options import Engines, TensorRTOptions

BuildPlan = Callable[[BuildSpec, Path], Mapping[str, object]]
"""Builds the engine of a spec, writes its plan to the path, and returns notes for the record. It is called only if the
cache has no such plan, so it imports TensorRT itself."""

OPTIONS_OUTSIDE_KEY = (
    "rewrites",
    "profiles",
    "min",
    "opt",
    "max",
    "ranges",
    "contexts",
    "engines",
    "memory_mb",
    "dynamic_shapes",
    "runtime_cache",
    "graphs",
    "pad_to_multiple_of",
)
"""Options that are not in the cache key of a plan. They do not change a plan, or the key has the profiles and the
digest of the source instead."""


def cached_engine(spec: BuildSpec, made_from: Mapping[str, object], build: BuildPlan) -> Artifact:
    """Return the cached plan of a network, or build it. With engines=per_shape, return a list of plans, one per shape.

    Args:
        made_from: parts of the cache key: digests of the files that define the network, and settings of the network
            that are not options.
    """
    if spec.options_as(TensorRTOptions).engines is Engines.one:
        return _plan(spec, made_from, build)
    shape_specs = [replace(spec, shapes=(shape,)) for shape in sorted(set(spec.shapes))]
    plans = [_plan(shape_spec, made_from, build) for shape_spec in shape_specs]
    entries = [{"path": str(plan.path.relative_to(spec.cache)), "sha256": plan.sha256} for plan in plans]

    def write(path: Path) -> Mapping[str, object]:
        path.write_text(json.dumps(entries, indent=1), encoding="utf-8")
        sizes = ("engine_bytes", "activation_bytes")
        known = [name for name in sizes if all(name in plan.notes for plan in plans)]
        total = {name: sum(from_json(int, plan.notes[name], name) for plan in plans) for name in known}
        profiles = [from_json(list[str], plan.notes["profiles"], "profiles") for plan in plans]
        return {"profiles": [profile for of_plan in profiles for profile in of_plan], **total}

    artifact = ArtifactCache(spec.cache).get("engines", {"plans": entries}, "plans.json", write, versions_of(PACKAGES))
    return replace(artifact, seconds=sum(plan.seconds for plan in plans))


def _plan(spec: BuildSpec, made_from: Mapping[str, object], build: BuildPlan) -> Artifact:
    """Return one plan. The cache key has everything that changes the plan, such as TensorRT release, GPU and driver."""
    options = spec.options_as(TensorRTOptions)
    libraries = [digest_of(Path(path)) for path in options.plugin_libraries]
    key = {
        **made_from,
        **({"plugin_libraries": libraries} if libraries else {}),
        **({"build_limit": str(spec.build_limit)} if spec.build_limit else {}),
        "precision": spec.precision,
        "profiles": [profile.to_json() for profile in plan_profiles(spec.shapes, options)],
        "options": {n: value for n, value in cell_mapping(options).items() if n not in OPTIONS_OUTSIDE_KEY},
        "gpu": [spec.device.name, list(spec.device.compute_capability)],
        "driver": spec.device.driver,
    }
    cache = ArtifactCache(spec.cache)
    return cache.get("engine", key, "model.plan", partial(build, spec), versions_of(PACKAGES))
