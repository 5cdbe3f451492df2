"""Engines in the cache, whatever their network is made from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import Artifact, BuildSpec, Session, versions_of
from backends.cache import ArtifactCache, digest_of
from backends.tensorrt_.installation import PACKAGES
from backends.tensorrt_.profiles import plan_profiles

if TYPE_CHECKING:
    from backends.tensorrt_.build import Define

ELSEWHERE = ("threads", "rewrites", "profiles", "min", "opt", "max", "ranges", "contexts", "engines", "memory_mb",
             "pad_to_multiple_of")  # fmt: skip
"""Options that change no plan by themselves, or that the source's digest and the profiles stand for in the key."""


def cached_engine(
    spec: BuildSpec, made_from: Mapping[str, Any], define: Callable[[BuildSpec], Callable[[], Define]]
) -> Artifact:
    """The plan of a network, or a list of several where each shape is to have an engine of its own.

    Args:
        made_from: digests of what the network is made from, and what else of it the options do not say.
        define: gives what fills the network for a spec; what that gives is asked only where nothing is cached, for it
            imports TensorRT.
    """
    if spec.options.get("engines", "one") == "one":
        return _plan(spec, made_from, define(spec))
    shapes = [replace(spec, shapes=(shape,)) for shape in sorted(set(spec.shapes))]
    plans = [_plan(one, made_from, define(one)) for one in shapes]
    listed = [{"path": str(plan.path.relative_to(spec.cache)), "sha256": plan.sha256} for plan in plans]

    def write(path: Path) -> Mapping[str, Any]:
        path.write_text(json.dumps(listed, indent=1), encoding="utf-8")
        total = {name: sum(plan.notes[name] for plan in plans) for name in ("engine_bytes", "activation_bytes")}
        return {"profiles": [profile for plan in plans for profile in plan.notes["profiles"]], **total}

    found = ArtifactCache(spec.cache).get("engines", {"plans": listed}, "plans.json", write, versions_of(PACKAGES))
    return replace(found, seconds=sum(plan.seconds for plan in plans))


def _plan(spec: BuildSpec, made_from: Mapping[str, Any], define: Callable[[], Define]) -> Artifact:
    """It is keyed by all that changes it, so that a plan of another release, GPU or driver is never looked at."""
    libraries = [digest_of(Path(path)) for path in spec.options["plugin_libraries"]]
    key = {
        **made_from,
        **({"plugin_libraries": libraries} if libraries else {}),
        "precision": spec.precision,
        "profiles": [asdict(profile) for profile in plan_profiles(spec.shapes, spec.options)],
        "options": {name: value for name, value in spec.options.items() if name not in ELSEWHERE},
        "gpu": [spec.device.name, list(spec.device.compute_capability)],
        "driver": spec.device.driver,
    }

    def build(path: Path) -> Mapping[str, Any]:
        from backends.tensorrt_.build import build_plan

        return build_plan(spec, path, define())

    return ArtifactCache(spec.cache).get("engine", key, "model.plan", build, versions_of(PACKAGES))


def last_of(opening: Iterator[tuple[str, Session | None]]) -> Session:
    """The session that `Backend.opening` ends with."""
    *_, (_, session) = opening
    assert session is not None
    return session
