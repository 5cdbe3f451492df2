"""Engines in the cache, whatever their network is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import Artifact, BuildSpec, versions_of
from backends.cache import ArtifactCache
from backends.tensorrt_.installation import PACKAGES
from backends.tensorrt_.profiles import plan_profiles

if TYPE_CHECKING:
    from backends.tensorrt_.build import Define

ELSEWHERE = ("threads", "rewrites", "profiles", "min", "opt", "max")
"""Options that change no plan by themselves, or that the source's digest and the profiles stand for in the key."""


def cached_plan(spec: BuildSpec, made_from: Mapping[str, Any], define: Callable[[], Define]) -> Artifact:
    """The plan of a network, from the cache or built now; `define` is asked only then, for it imports TensorRT.

    It is keyed by all that changes it, so that a plan of another release, GPU or driver is never looked at.

    Args:
        made_from: digests of what the network is made from, and what else of it the options do not say.
    """
    key = {
        **made_from,
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
